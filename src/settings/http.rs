//! `[http]` as meant. The keys' meaning, defaults and ranges stand in `raw.rs`.

use super::bounds::within;
use super::context::Context;
use super::raw::RawHttp;
use super::written::Size;
use std::net::{Ipv4Addr, SocketAddr};

#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpSettings {
    /// Always loopback: there is no authentication yet.
    pub listen: SocketAddr,
    /// Largest request body, bytes.
    pub body_max: usize,
}

/// Sixteen times the largest record: a batch of some size fits.
const BODY_MAX: u64 = 16 << 20;

impl HttpSettings {
    pub(super) fn resolve(raw: &RawHttp, cx: &Context<'_>) -> Self {
        let sizes = Size(1024)..=Size(256 << 20);
        let body_max = within(&raw.body_max, "http.body_max", sizes, cx.report).map_or(BODY_MAX, |s| s.0);
        HttpSettings { listen: listen(raw, cx), body_max: usize::try_from(body_max).unwrap_or(usize::MAX) }
    }
}

fn listen(raw: &RawHttp, cx: &Context<'_>) -> SocketAddr {
    let default = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    let Some(given) = raw.listen.given() else { return default };
    let written = given.get_ref().replace("localhost:", "127.0.0.1:");
    let Ok(address) = written.parse::<SocketAddr>() else {
        let help = "an address and a port: \"127.0.0.1:8080\"; port 0 takes a free one";
        cx.report.add(given.span(), "`http.listen` is not an address", help);
        return default;
    };
    if let Some((what, help)) = open_to_others(address) {
        cx.report.add(given.span(), format!("`http.listen` {what}"), help);
    }
    address
}

/// Why the API may not answer there, and what to do; one rule for the file and for `--listen`.
pub(crate) fn open_to_others(address: SocketAddr) -> Option<(String, &'static str)> {
    let help = "this version has none, so it answers on this machine only: listen on 127.0.0.1 or \
                [::1], and put a proxy that authenticates in front";
    let what = format!("would open {address} to others without authentication");
    (!address.ip().is_loopback()).then_some((what, help))
}

/// A task that is allowed must also fit into a request.
pub(super) fn fits(raw: &RawHttp, settings: &super::Settings, cx: &Context<'_>) {
    if let Some(given) = raw.body_max.given()
        && settings.http.body_max < settings.engine.record_max
    {
        let help = "raise it to `engine.record_max` at least, or lower that";
        let what =
            "`http.body_max` is less than `engine.record_max`: tasks that are allowed could not be sent";
        cx.report.add(given.span(), what, help);
    }
}
