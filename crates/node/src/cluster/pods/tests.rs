use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use plan::incident::{Incident, Reason};
use plan::numbers::Labels;
use serde_json::Value;

use super::*;
use crate::incidents::Ledger;

fn incident() -> Incident {
    Incident {
        labels: Labels {
            namespace: "shop".to_owned(),
            pod: "web-1".to_owned(),
            uid: "u1".to_owned(),
            container: "web".to_owned(),
            holder: false,
        },
        reason: Reason::Trap,
        message: "trap: unreachable".to_owned(),
        at: 1_700_000_000_000,
    }
}

fn entry(count: usize) -> Entry {
    let mut ledger = Ledger::new(Instant::now());
    for _ in 0..count {
        ledger.note(incident(), Instant::now());
    }
    ledger.due(Instant::now()).remove(0).1
}

/// What an API server was asked: method, path, body.
type Asked = Arc<Mutex<Vec<(String, String, Value)>>>;

/// An API server on loopback that answers each request by its method.
async fn cluster(answer: fn(&str, Value) -> (u16, Value)) -> (Teller, Asked) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("listens");
    let address = listener.local_addr().expect("an address");
    let asked = Asked::default();
    let heard = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let heard = Arc::clone(&heard);
            let service = service_fn(move |request: http::Request<Incoming>| {
                let heard = Arc::clone(&heard);
                async move {
                    let (parts, body) = request.into_parts();
                    let bytes = body.collect().await.expect("a body").to_bytes();
                    let body: Value = serde_json::from_slice(&bytes).unwrap_or_default();
                    let (status, text) = answer(parts.method.as_str(), body.clone());
                    heard.lock().expect("whole").push((
                        parts.method.to_string(),
                        parts.uri.path().to_owned(),
                        body,
                    ));
                    let response = http::Response::builder()
                        .status(status)
                        .header("content-type", "application/json")
                        .body(Full::new(Bytes::from(text.to_string())));
                    Ok::<_, Infallible>(response.expect("a response"))
                }
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
    let uri = format!("http://{address}").parse().expect("a URI");
    let client = Client::try_from(kube::Config::new(uri)).expect("a client");
    let node = "n1".to_owned();
    (Teller { client, node }, asked)
}

fn refusal(code: u16, message: &str) -> (u16, Value) {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "message": message, "code": code,
        "reason": "x", "metadata": {},
    });
    (code, status)
}

#[test]
fn an_event_is_of_its_pod_and_container() {
    let event = serde_json::to_value(event(&entry(2), "n1")).expect("JSON");
    for (path, value) in [
        ("/metadata/namespace", json!("shop")),
        ("/involvedObject/uid", json!("u1")),
        ("/involvedObject/fieldPath", json!("spec.containers{web}")),
        ("/reason", json!("SampanTrap")),
        ("/type", json!("Warning")),
        ("/count", json!(2)),
        ("/lastTimestamp", json!("2023-11-14T22:13:20Z")),
    ] {
        assert_eq!(event.pointer(path), Some(&value), "{path} of {event}");
    }
    let name = event["metadata"]["name"].as_str().expect("a name");
    assert!(name.starts_with("web-1."), "{name}");
}

#[tokio::test]
async fn an_event_is_created_once_and_then_counted() {
    let (teller, asked) = cluster(|_, body| (200, body)).await;
    let mut told = entry(1);
    let Posted::As(name) = teller.tell(&told).await.expect("told") else {
        panic!("it has a name");
    };
    told.event = Some(name.clone());
    told.count = 3;
    assert_eq!(
        teller.tell(&told).await.expect("told"),
        Posted::As(name.clone())
    );
    let asked = asked.lock().expect("whole");
    let [(create, at, first), (patch, of, again)] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    assert_eq!((create.as_str(), patch.as_str()), ("POST", "PATCH"));
    assert_eq!(at, "/api/v1/namespaces/shop/events");
    assert_eq!(*of, format!("/api/v1/namespaces/shop/events/{name}"));
    assert_eq!((&first["count"], &again["count"]), (&json!(1), &json!(3)));
}

#[tokio::test]
async fn one_that_was_forgotten_is_told_anew() {
    let (teller, asked) = cluster(|method, body| match method {
        "PATCH" => refusal(404, "not found"),
        _ => (201, body),
    })
    .await;
    let mut told = entry(1);
    told.event = Some("old".to_owned());
    assert!(matches!(teller.tell(&told).await, Ok(Posted::As(name)) if name != "old"));
    assert_eq!(asked.lock().expect("whole").len(), 2);
}

#[tokio::test]
async fn a_namespace_that_goes_is_no_error_and_a_missing_right_is() {
    let (teller, _) = cluster(|_, _| refusal(403, "it is being terminated")).await;
    assert_eq!(teller.tell(&entry(1)).await.expect("told"), Posted::Nowhere);
    let (teller, _) = cluster(|_, _| refusal(404, "namespaces \"shop\" not found")).await;
    assert_eq!(teller.tell(&entry(1)).await.expect("told"), Posted::Nowhere);
    let (teller, _) = cluster(|_, _| refusal(403, "events is forbidden")).await;
    let error = teller.tell(&entry(1)).await.expect_err("refused");
    assert!(format!("{error:#}").contains("forbidden"), "{error:#}");
}
