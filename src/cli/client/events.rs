//! Server-sent events as they come, across broken connections.

use super::{Client, Failed};
use reqwest::Method;
use std::time::Duration;

/// How long to wait before a broken stream is opened again.
const AGAIN: Duration = Duration::from_millis(500);
/// A line of an event holds one record; none is larger than 64 MiB.
const LINE_MAX: usize = 64 * 1024 * 1024;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(in crate::cli) struct Event {
    pub(in crate::cli) name: String,
    /// JSON.
    pub(in crate::cli) data: String,
}

/// One subscription. Goes on after the last event it saw when the connection breaks.
pub(in crate::cli) struct Events {
    client: Client,
    path: Vec<String>,
    query: Vec<(String, String)>,
    response: Option<reqwest::Response>,
    parser: Parser,
}

impl Events {
    /// Subscribed once this returns: what happens from then on is seen.
    pub(in crate::cli) async fn open(
        client: &Client,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> Result<Events, Failed> {
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let mut events = Events {
            client: client.clone(),
            path: path.iter().map(|p| (*p).to_owned()).collect(),
            query: query.iter().map(own).collect(),
            response: None,
            parser: Parser::default(),
        };
        events.connect().await?;
        // The first bytes hold the place to go on from.
        events.fill().await?;
        Ok(events)
    }

    /// Cancel-safe. Failures that pass are waited out; `lost` is called once for each.
    pub(in crate::cli) async fn next(&mut self, lost: impl Fn(&Failed)) -> Result<Event, Failed> {
        loop {
            if let Some(event) = self.parser.next() {
                return Ok(event);
            }
            let read = if self.response.is_some() { self.fill().await } else { self.connect().await };
            match read {
                Ok(()) => {}
                Err(failed) if failed.passes() => {
                    if self.response.take().is_some() {
                        lost(&failed);
                    }
                    tokio::time::sleep(AGAIN).await;
                }
                Err(failed) => return Err(failed),
            }
        }
    }

    async fn connect(&mut self) -> Result<(), Failed> {
        let path: Vec<&str> = self.path.iter().map(String::as_str).collect();
        let query: Vec<(&str, &str)> = self.query.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let mut request =
            self.client.request(Method::GET, &path, &query).header("accept", "text/event-stream");
        if !self.parser.id.is_empty() {
            request = request.header("last-event-id", &self.parser.id);
        }
        let response = request.send().await.map_err(|e| self.client.no_answer(&e))?;
        let status = response.status();
        if !status.is_success() {
            let body = response.bytes().await.unwrap_or_default();
            return Err(self.client.refused(status.as_u16(), &body));
        }
        self.parser.restart();
        self.response = Some(response);
        Ok(())
    }

    async fn fill(&mut self) -> Result<(), Failed> {
        let Some(response) = &mut self.response else { return Ok(()) };
        match response.chunk().await {
            Ok(Some(bytes)) if self.parser.room() => {
                self.parser.take(&bytes);
                Ok(())
            }
            Ok(Some(_)) => Err(self.client.stranger(200)),
            Ok(None) => {
                Err(Failed::NoAnswer { url: self.client.url().to_owned(), why: "it ended the stream" })
            }
            Err(e) => Err(self.client.no_answer(&e)),
        }
    }
}

/// From bytes to events, as the specification of server-sent events has it.
#[derive(Default)]
struct Parser {
    buffer: Vec<u8>,
    /// How much of `buffer` is read.
    read: usize,
    name: String,
    data: Option<String>,
    /// Of the last event, or of an id that came alone.
    id: String,
}

impl Parser {
    /// An event that was cut off comes again as a whole.
    fn restart(&mut self) {
        *self = Parser { id: std::mem::take(&mut self.id), ..Parser::default() };
    }

    fn room(&self) -> bool {
        self.buffer.len() - self.read < LINE_MAX
    }

    fn take(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.read);
        self.read = 0;
        self.buffer.extend_from_slice(bytes);
    }

    fn next(&mut self) -> Option<Event> {
        loop {
            let rest = &self.buffer[self.read..];
            let end = rest.iter().position(|b| *b == b'\n')?;
            let line = String::from_utf8_lossy(&rest[..end]).into_owned();
            self.read += end + 1;
            if let Some(event) = self.line(line.trim_end_matches('\r')) {
                return Some(event);
            }
        }
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let name = std::mem::take(&mut self.name);
            return self.data.take().map(|data| Event { name, data });
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.name),
            "id" => value.clone_into(&mut self.id),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_whole_however_the_bytes_are_cut() {
        let text = "retry: 1000\nid: a\n\n: alive\nid: b\nevent: result\ndata: {\"x\":\"é\"}\r\n\nid: c\nevent: two\ndata: 1\ndata:2\n\ndata: cut";
        for size in [1, 2, 3, 7, 1_000] {
            let mut parser = Parser::default();
            let mut found = Vec::new();
            for piece in text.as_bytes().chunks(size) {
                parser.take(piece);
                while let Some(event) = parser.next() {
                    found.push((event.name, event.data));
                }
            }
            let expected =
                [("result".to_owned(), "{\"x\":\"é\"}".to_owned()), ("two".to_owned(), "1\n2".to_owned())];
            assert_eq!(found, expected, "pieces of {size} bytes");
            assert_eq!(parser.id, "c");
            parser.restart();
            assert_eq!((parser.id.as_str(), parser.data), ("c", None), "what was cut off comes again");
        }
    }
}
