//! The scripts that run inside the store, each whole: what is shared is put before what is its own.

/// Every script; its number is its place in what a connection has loaded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Script {
    Admit,
    Start,
    Bar,
    Store,
    Release,
    Close,
    Moved,
    Look,
    List,
}

macro_rules! whole {
    ($before:literal, $own:literal) => {
        concat!(include_str!(concat!("scripts/", $before)), include_str!(concat!("scripts/", $own)))
    };
}

/// In the order of [`Script`].
pub(super) const TEXTS: [&str; 9] = [
    whole!("entry.lua", "admit.lua"),
    whole!("entry.lua", "start.lua"),
    whole!("entry.lua", "bar.lua"),
    whole!("entry.lua", "store.lua"),
    whole!("entry.lua", "release.lua"),
    whole!("entry.lua", "close.lua"),
    whole!("entry.lua", "moved.lua"),
    whole!("view.lua", "look.lua"),
    whole!("view.lua", "list.lua"),
];
