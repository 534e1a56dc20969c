//! One simulated broker and store for all stories of a run, served by this process to the binaries that it starts.
//!
//! `TIDEGATE_STORIES=simulated` puts every place on it. Each place has a world of its own: its prefix names it.

use std::sync::OnceLock;
use std::time::Duration;
use tidegate::engine::distributed::simulated::served::serve;

/// How long a killed process is missed by nobody.
const SESSION: Duration = Duration::from_millis(1_500);

/// The lines of an `[engine]` with this prefix.
pub(crate) fn engine(prefix: &str, partitions: u32) -> String {
    let address = address();
    format!(
        "kafka = \"simulated://{address}\"\nredis = \"redis://simulated:1\"\nprefix = \"{prefix}\"\n\
         partitions = {partitions}\n"
    )
}

/// Where it listens: started by the first that asks, ended with the process.
fn address() -> &'static str {
    static ADDRESS: OnceLock<String> = OnceLock::new();
    ADDRESS.get_or_init(|| {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        // A thread of its own, so that a story that keeps its runtime busy does not make the broker late.
        let thread = std::thread::Builder::new().name("simulator".to_owned());
        let serving = async { serve(tokio::net::TcpListener::from_std(listener).unwrap(), SESSION).await };
        thread.spawn(move || runtime.block_on(serving)).unwrap();
        address
    })
}
