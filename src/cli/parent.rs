//! Ends this process with the one that started it, whatever ends that one: kill -9 too.
//!
//! The kernel does it, on Linux; elsewhere nothing does. Never looks for anybody but the parent.

use std::io;

/// From now on this process is killed when its parent ends. `false`: `parent` is not its parent any more.
///
/// The kernel means the *thread* that started this process, and remembers it for the thread that calls
/// this: both have to be threads that live as long as their process.
pub(super) fn end_with(parent: u32) -> io::Result<bool> {
    #[cfg(target_os = "linux")]
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    // Asked afterwards: a parent that ended before the kernel was told is not told of any more.
    let now = rustix::process::getppid().map(|id| id.as_raw_nonzero().get());
    Ok(now.is_some_and(|id| u32::try_from(id) == Ok(parent)))
}
