//! Connections of the HTTP API: how many there are, and how long one may not take what it asked for.
//!
//! Knows nothing of HTTP. A connection that is cut loses no event: a cursor lets its client go on.

use axum::serve::Listener;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, Sleep};

/// With the reserve, half of the 1,024 descriptors that a process usually gets. The other half is the
/// log's, the ledger's and the models': without one the log could not begin its next segment.
pub(super) const CONNECTIONS_MAX: usize = 480;
/// Places beyond those, for who asks whether the process lives: a few probes and a scrape at once, and some
/// who only hold them for a second. Whoever comes beyond these too waits in the system's queue.
pub(super) const RESERVE: usize = 32;
/// A client that takes nothing for this long is gone, or might as well be.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// A connection without a byte in either direction for this long gives its place to another. Event streams
/// say that they live every 15 s, and the slowest answer, a redrive of thousands, takes a minute.
pub(super) const IDLE: Duration = Duration::from_secs(300);

pub(super) struct Bounded {
    inner: TcpListener,
    places: Arc<Semaphore>,
    /// With fewer free places than these they run out.
    few: usize,
    reserve: Arc<Semaphore>,
    patience: Duration,
    idle: Duration,
}

/// Whose place a connection has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Seat {
    Ordinary,
    /// One of the last quarter.
    Scarce,
    /// All others were taken when it came.
    Reserved,
}

impl Bounded {
    pub(super) fn new(
        inner: TcpListener,
        places: usize,
        reserve: usize,
        patience: Duration,
        idle: Duration,
    ) -> Self {
        let few = places / 4;
        let (places, reserve) = (Arc::new(Semaphore::new(places)), Arc::new(Semaphore::new(reserve)));
        Bounded { inner, places, few, reserve, patience, idle }
    }

    /// The next connection, once there is a place for it. Cancel-safe.
    pub(super) async fn accept(&mut self) -> (Connection, Seat) {
        // The semaphores are never closed.
        let held = tokio::select! {
            biased;
            place = self.places.clone().acquire_owned() => (place.ok(), Seat::Ordinary),
            place = self.reserve.clone().acquire_owned() => (place.ok(), Seat::Reserved),
        };
        let (stream, _) = Listener::accept(&mut self.inner).await;
        // An ordinary place may have become free while nobody came.
        let (place, seat) = match self.places.clone().try_acquire_owned() {
            Ok(place) if held.1 == Seat::Reserved => (Some(place), Seat::Ordinary),
            _ => held,
        };
        let scarce = seat == Seat::Ordinary && self.places.available_permits() < self.few;
        let seat = if scarce { Seat::Scarce } else { seat };
        // Events are small and must not wait for the next one.
        if let Err(e) = stream.set_nodelay(true) {
            tracing::debug!(%e, "a connection keeps its delay");
        }
        let (patience, idle) = (self.patience, self.idle);
        let (last, silent) = (Instant::now(), Box::pin(tokio::time::sleep(idle)));
        (Connection { stream, patience, idle, stalled: None, last, silent, _place: place }, seat)
    }
}

/// A socket that gives its place back when it is closed, and fails once its client has taken nothing
/// for too long.
pub(super) struct Connection {
    stream: TcpStream,
    patience: Duration,
    idle: Duration,
    /// Runs while the client takes nothing.
    stalled: Option<Pin<Box<Sleep>>>,
    /// When something was sent either way. What waits for the next byte is woken by `silent`, and looks.
    last: Instant,
    silent: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = write(Pin::new(&mut self.stream), cx) {
            (self.stalled, self.last) = (None, Instant::now());
            return Poll::Ready(written);
        }
        let patience = self.patience;
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        metrics::counter!("tidegate_http_stalled_total").increment(1);
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Poll::Ready(read) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            self.last = Instant::now();
            return Poll::Ready(read);
        }
        loop {
            ready!(self.silent.as_mut().poll(cx));
            let end = self.last + self.idle;
            if end <= Instant::now() {
                // Nothing read is the end of what the client sends: the server closes, as if it had.
                return Poll::Ready(Ok(()));
            }
            self.silent.as_mut().reset(end);
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;
    use tokio::io::AsyncWriteExt as _;

    async fn bounded(places: usize) -> (Bounded, SocketAddr) {
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = inner.local_addr().unwrap();
        (Bounded::new(inner, places, 0, Duration::from_millis(200), Duration::from_millis(300)), at)
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_and_one_that_reads_slowly_is_not() {
        let (mut listener, at) = bounded(2).await;
        let _idle = TcpStream::connect(at).await.unwrap();
        let (mut connection, _) = listener.accept().await;
        let endless = vec![b'x'; 64 << 20];
        let ended = tokio::time::timeout(Duration::from_secs(10), connection.write_all(&endless)).await;
        assert_eq!(ended.expect("it waits for ever").unwrap_err().kind(), io::ErrorKind::TimedOut);

        let mut slow = TcpStream::connect(at).await.unwrap();
        let (mut connection, _) = listener.accept().await;
        let reads = async {
            let mut taken = 0;
            let mut piece = vec![0; 4 << 20];
            while taken < 16 << 20 {
                tokio::time::sleep(Duration::from_millis(50)).await;
                taken += tokio::io::AsyncReadExt::read(&mut slow, &mut piece).await.unwrap();
            }
        };
        let (_, written) = tokio::join!(reads, connection.write_all(&endless[..16 << 20]));
        written.unwrap();
    }

    #[tokio::test]
    async fn a_silent_connection_ends_and_one_that_is_written_to_does_not() {
        let (mut listener, at) = bounded(1).await;
        let client = TcpStream::connect(at).await.unwrap();
        let (connection, _) = listener.accept().await;
        let (mut reads, mut writes) = tokio::io::split(connection);
        let began = std::time::Instant::now();
        let alive = async {
            for _ in 0..6 {
                writes.write_all(b": alive").await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let mut piece = [0; 8];
        let (ended, ()) = tokio::join!(tokio::io::AsyncReadExt::read(&mut reads, &mut piece), alive);
        assert_eq!(ended.unwrap(), 0, "the end");
        assert!(began.elapsed() >= Duration::from_millis(600), "{:?}", began.elapsed());
        drop(client);
    }

    #[tokio::test]
    async fn a_place_is_free_again_only_once_its_connection_is_closed() {
        let (mut listener, at) = bounded(1).await;
        let (_one, _two) = (TcpStream::connect(at).await.unwrap(), TcpStream::connect(at).await.unwrap());
        let (first, _) = listener.accept().await;
        let soon = Duration::from_millis(100);
        assert!(tokio::time::timeout(soon, listener.accept()).await.is_err(), "there is one place");
        drop(first);
        tokio::time::timeout(Duration::from_secs(5), listener.accept()).await.unwrap();
    }
}
