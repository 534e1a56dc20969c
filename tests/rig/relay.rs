//! Stands between clients and a server, and cuts what goes through it: a network that fails.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

/// Runs until the process ends; a connection ends with either side of it.
pub(crate) struct Relay {
    pub(crate) port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    to: OnceLock<String>,
    /// Nothing gets through, and nobody is let in.
    cut: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Relay {
    pub(crate) fn new() -> Self {
        let shared = Arc::new(Shared::default());
        let port = listen(shared.clone(), carry);
        Relay { port, shared }
    }

    pub(crate) fn lead_to(&self, server: &str) {
        self.shared.to.set(server.to_owned()).unwrap();
    }

    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Every connection breaks, and for so long none is made.
    pub(crate) fn cut(&self, lasts: Duration) {
        self.shared.cut.store(true, Ordering::SeqCst);
        for stream in self.shared.open.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        std::thread::sleep(lasts);
        self.shared.cut.store(false, Ordering::SeqCst);
    }
}

/// Carries each connection to a free port on a thread of its own, until the process ends. The port.
pub(super) fn listen<T: Send + Sync + 'static>(shared: Arc<T>, carry: fn(TcpStream, &T)) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let shared = shared.clone();
            std::thread::spawn(move || carry(client, &shared));
        }
    });
    port
}

fn carry(client: TcpStream, shared: &Shared) {
    if shared.cut.load(Ordering::SeqCst) {
        return;
    }
    let Some(Ok(server)) = shared.to.get().map(TcpStream::connect) else { return };
    for stream in [&client, &server] {
        let _ = stream.set_nodelay(true);
        shared.open.lock().unwrap().push(stream.try_clone().unwrap());
    }
    let (back_to, back_from) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    std::thread::spawn(move || pass(back_from, back_to));
    pass(client, server);
}

fn pass(mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 65_536];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..n]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
