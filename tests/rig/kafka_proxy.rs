//! Stands between the clients and the broker, and loses the ends of transactions: the request, so that
//! it never happens, or the answer, so that it has happened and nobody knows.

use super::relay::listen;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::time::Duration;

/// Kafka's number of the request that ends a transaction.
const END_TXN: u16 = 26;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Lost {
    Nothing = 0,
    /// The broker never hears of it.
    Requests = 1,
    /// The broker does it, and the connection breaks before the answer.
    Answers = 2,
}

/// Runs until the process ends; a connection ends with either side of it.
pub(crate) struct Proxy {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    lost: AtomicU8,
    count: AtomicUsize,
    to: std::sync::OnceLock<String>,
}

impl Proxy {
    pub(crate) fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let port = listen(shared.clone(), carry);
        Proxy { port, shared }
    }

    pub(crate) fn lead_to(&self, broker: &str) {
        self.shared.to.set(broker.to_owned()).unwrap();
    }

    pub(crate) fn lose(&self, lost: Lost) {
        self.shared.lost.store(lost as u8, Ordering::SeqCst);
    }

    /// How many ends of transactions were lost.
    pub(crate) fn lost(&self) -> usize {
        self.shared.count.load(Ordering::SeqCst)
    }
}

fn carry(mut client: TcpStream, shared: &Shared) {
    let Some(Ok(mut broker)) = shared.to.get().map(TcpStream::connect) else { return };
    let (mut back, mut from) = (client.try_clone().unwrap(), broker.try_clone().unwrap());
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut from, &mut back);
        let _ = back.shutdown(Shutdown::Both);
    });
    // A request: its length, then which it is.
    let mut length = [0; 4];
    while client.read_exact(&mut length).is_ok() {
        let mut request = vec![0; u32::from_be_bytes(length) as usize];
        if client.read_exact(&mut request).is_err() {
            break;
        }
        let ends = request.first_chunk().is_some_and(|kind| u16::from_be_bytes(*kind) == END_TXN);
        let lost = if ends { shared.lost.load(Ordering::SeqCst) } else { Lost::Nothing as u8 };
        if lost == Lost::Answers as u8 {
            // Nothing comes back any more, and the broker takes the request all the same.
            let _ = client.shutdown(Shutdown::Both);
        }
        if lost != Lost::Nothing as u8 {
            shared.count.fetch_add(1, Ordering::SeqCst);
        }
        let passed = lost != Lost::Requests as u8
            && broker.write_all(&length).and_then(|()| broker.write_all(&request)).is_ok();
        if !passed || lost == Lost::Answers as u8 {
            std::thread::sleep(Duration::from_millis(200));
            break;
        }
    }
    let _ = client.shutdown(Shutdown::Both);
    let _ = broker.shutdown(Shutdown::Both);
}
