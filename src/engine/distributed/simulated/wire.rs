//! What a process and the simulator say to each other, and the line that carries it: over a socket, each
//! frame behind its length.
//!
//! It knows nothing of groups or claims. A line that breaks has ended for both; none comes back.

use super::super::client::{Heard, Order, Sent};
use crate::dedupe::Instance;
use crate::engine::Output;
use crate::task::{Partition, Position, ScopedKey, Timestamp, Topic};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Bytes of one frame: eight times what the port reads at once. More is not ours.
const FRAME: usize = 64 << 20;

/// Said by a process. The first frame of a line says what the line is.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Said {
    Member {
        place: String,
        group: String,
        topics: Vec<Topic>,
    },
    Asks {
        place: String,
        window: Duration,
    },
    /// And when, on the clock of the process.
    Order(Order, Duration),
    Question(Question),
}

/// Each is answered by what the same call of the port or the seam returns, in the order of the questions.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Question {
    Beat(Instance),
    Call(Instance, Box<Sent>),
    Look(Vec<ScopedKey>),
    List(Option<ScopedKey>, usize),
    Append(Vec<Output>),
    Read(Position, usize),
    Ends(Topic),
    Since(Partition, Timestamp),
    Describe(Vec<Topic>),
    Make { topic: Topic, partitions: u32, settings: BTreeMap<String, String> },
}

/// Said by the simulator.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Told {
    /// For `Confirmed`: the last order before the group was asked, as the process has timed it.
    Heard(Heard, Option<Duration>),
    Answer(Vec<u8>),
}

/// One end of a line. Dropped, it ends once what was said has gone out.
pub(super) struct Line<Out, In> {
    // Without a bound, as the simulated client's own: it is told to say things where nobody can wait.
    says: UnboundedSender<Out>,
    hears: UnboundedReceiver<In>,
}

/// To be run by whoever owns the line's task.
pub(super) struct Carrier<Out, In> {
    says: UnboundedReceiver<Out>,
    hears: UnboundedSender<In>,
}

pub(super) fn line<Out: Serialize, In: DeserializeOwned>() -> (Line<Out, In>, Carrier<Out, In>) {
    let ((says, said), (heard, hears)) = (unbounded_channel(), unbounded_channel());
    (Line { says, hears }, Carrier { says: said, hears: heard })
}

impl<Out, In> Line<Out, In> {
    pub(super) fn say(&self, what: Out) {
        // A line that has ended is heard of in `hear`.
        let _ = self.says.send(what);
    }

    /// `None`: it has ended. Cancel-safe.
    pub(super) async fn hear(&mut self) -> Option<In> {
        self.hears.recv().await
    }
}

impl<Out: Serialize, In: DeserializeOwned> Carrier<Out, In> {
    /// Until both ends have gone.
    pub(super) async fn carry(self, socket: TcpStream) {
        // A frame must not wait for the answer to the one before.
        let _ = socket.set_nodelay(true);
        let (mut from, mut to) = socket.into_split();
        let Carrier { mut says, hears } = self;
        let out = async move {
            while let Some(what) = says.recv().await {
                if write(&mut to, &what).await.is_err() {
                    return;
                }
            }
        };
        let back = async move {
            while let Ok(what) = read(&mut from).await {
                if hears.send(what).is_err() {
                    return;
                }
            }
        };
        tokio::join!(out, back);
    }
}

pub(super) async fn write(to: &mut (impl AsyncWrite + Unpin), what: &impl Serialize) -> Result<()> {
    let body = postcard::to_stdvec(what).map_err(Error::other)?;
    let length = u32::try_from(body.len()).ok().filter(|n| *n as usize <= FRAME);
    let length = length.ok_or_else(|| Error::other("a frame is too large"))?;
    to.write_all(&[&length.to_le_bytes(), body.as_slice()].concat()).await
}

pub(super) async fn read<T: DeserializeOwned>(from: &mut (impl AsyncRead + Unpin)) -> Result<T> {
    let length = from.read_u32_le().await? as usize;
    if length > FRAME {
        return Err(Error::new(ErrorKind::InvalidData, "a frame is too large"));
    }
    let mut body = vec![0; length];
    from.read_exact(&mut body).await?;
    postcard::from_bytes(&body).map_err(|error| Error::new(ErrorKind::InvalidData, error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::distributed::assignment::{MemberId, Membership};
    use crate::engine::distributed::committer::Transaction;
    use crate::task::Headers;
    use std::time::Instant;

    async fn there_and_back<T: Serialize + DeserializeOwned>(what: &T) -> T {
        let mut wire = Vec::new();
        write(&mut wire, what).await.unwrap();
        let mut rest = wire.as_slice();
        let back = read(&mut rest).await.unwrap();
        assert!(rest.is_empty(), "{} of {} bytes are left", rest.len(), wire.len());
        back
    }

    #[tokio::test]
    async fn a_frame_comes_back_as_it_was() {
        let at = Partition { topic: Topic::new("results"), index: 3 };
        let output = Output {
            topic: Topic::new("results"),
            key: None,
            value: Some(vec![0, 255].into()),
            headers: Headers::default().with("trace", vec![200]),
            not_before: Some(Timestamp(-1)),
        };
        let by = Membership { member: MemberId("m".into()), generation: 7 };
        let offsets = vec![(at.clone(), u64::MAX, "holes".to_owned())];
        let order = Order::Commit(Transaction { outputs: vec![output], offsets, by });
        let said = Said::Order(order, Duration::from_nanos(1));
        assert_eq!(format!("{said:?}"), format!("{:?}", there_and_back(&said).await));
        let member = MemberId("m".into());
        let heard = Heard::Confirmed { asked: Instant::now(), member, parts: vec![at] };
        let Told::Heard(Heard::Confirmed { member, parts, .. }, asked) =
            there_and_back(&Told::Heard(heard, Some(Duration::from_secs(9)))).await
        else {
            panic!("something else came back")
        };
        assert_eq!((&*member.0, parts.len(), asked), ("m", 1, Some(Duration::from_secs(9))));
    }

    #[tokio::test]
    async fn what_is_too_large_or_cut_short_is_refused() {
        let large = vec![0u8; FRAME + 1];
        assert!(write(&mut Vec::new(), &large).await.is_err());
        let claimed = u32::try_from(FRAME + 1).unwrap().to_le_bytes();
        assert_eq!(read::<Vec<u8>>(&mut &claimed[..]).await.unwrap_err().kind(), ErrorKind::InvalidData);
        let mut wire = Vec::new();
        write(&mut wire, &Told::Answer(vec![1, 2, 3])).await.unwrap();
        let cut = &wire[..wire.len() - 1];
        assert_eq!(read::<Told>(&mut &cut[..]).await.unwrap_err().kind(), ErrorKind::UnexpectedEof);
    }
}
