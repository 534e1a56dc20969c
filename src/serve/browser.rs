//! Refuses what somebody else's web page makes a browser send: this API has no login, and it approves
//! reviews. Requests of programs carry nothing that would be refused here.
//!
//! ## Why these two
//!
//! A page elsewhere can have a browser send requests to this machine, but not choose their headers.
//! Under its own name that resolves to us (rebinding) `Host` is that name; across sites every write
//! carries its `Origin`. Reads across sites need no rule: a browser does not show their answers.

use super::error::ApiError;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

pub(super) async fn refuse(request: Request, next: Next) -> Response {
    match judge(request.method(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(e) => e.into_response(),
    }
}

fn judge(method: &Method, headers: &HeaderMap) -> Result<(), ApiError> {
    let host = text(headers, &header::HOST);
    if host.is_some_and(|host| !is_here(host)) {
        let help = "ask by the address of this machine, 127.0.0.1 for instance; a proxy in front sends \
                    its requests with that `Host`";
        return Err(forbidden("the request is for another host", help));
    }
    let reads = matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS);
    let from = text(headers, &header::ORIGIN);
    let own = |origin: &str| origin.split_once("://").map(|(_, authority)| authority) == host;
    if !reads && from.is_some_and(|origin| !own(origin)) {
        let help = "programs send no `Origin`; a page of another site may not write here";
        return Err(forbidden("the request comes from a page of another site", help));
    }
    Ok(())
}

/// The header; one that is not text reads as no host and no origin of ours.
fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn is_here(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_matches(['[', ']']);
    name.eq_ignore_ascii_case("localhost")
        || name.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

fn forbidden(message: &str, help: &str) -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "not-from-here", message, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(method: Method, host: &str, origin: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, host.parse().unwrap());
        origin.into_iter().for_each(|o| drop(headers.insert(header::ORIGIN, o.parse().unwrap())));
        judge(&method, &headers).is_ok()
    }

    #[test]
    fn only_this_machine_is_asked_by_name() {
        for host in ["127.0.0.1:8080", "127.9.9.9", "localhost:1", "LOCALHOST", "[::1]:8080"] {
            assert!(verdict(Method::GET, host, None), "{host}");
        }
        for host in ["evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "10.0.0.1", "é"]
        {
            assert!(!verdict(Method::GET, host, None), "{host}");
        }
        assert!(judge(&Method::POST, &HeaderMap::new()).is_ok(), "HTTP/1.0 has no `Host`, and no browser");
    }

    #[test]
    fn a_page_may_write_to_its_own_server_alone() {
        let host = "127.0.0.1:8080";
        assert!(verdict(Method::POST, host, Some("http://127.0.0.1:8080")));
        for origin in ["https://evil.example", "null", "http://127.0.0.1:3000", "http://localhost:8080", ""] {
            assert!(!verdict(Method::POST, host, Some(origin)), "{origin}");
            assert!(verdict(Method::GET, host, Some(origin)), "its answer is not shown to {origin}");
        }
    }
}
