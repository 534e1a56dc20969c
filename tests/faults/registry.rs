//! A schema registry that is away, slow, hostile or misled: what it says of a schema is believed, and
//! nothing else is taken for it.

use crate::rig::registry::{Mood, Registry};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tidegate::avro::{Access, Auth, Away, Known, Need, NoWriter, Schemas, Source};
use tidegate::task::Topic;

const TIMEOUT: Duration = Duration::from_millis(300);
/// A registry that was away is asked again after so long.
const AGAIN: Duration = Duration::from_millis(600);

fn access(registry: &Registry, auth: Option<Auth>, register: bool) -> Schemas {
    let access = Access::new(&registry.url(), auth, TIMEOUT, register).unwrap();
    Schemas::new(Some(Arc::new(Source::Registry(tidegate::avro::Registry::new(access)))))
}

fn schemas(registry: &Registry) -> Schemas {
    access(registry, None, true)
}

fn order() -> Value {
    json!({ "type": "record", "name": "Order", "namespace": "shop", "fields": [{ "name": "id", "type": "string" }] })
}

/// The reason; `None`: the schema is there.
async fn refused(schemas: &Schemas, id: u32) -> Option<String> {
    schemas.obtain(&Need::Reader(id)).await.unwrap();
    match schemas.reader(id) {
        Known::Schema(_) => None,
        Known::Refused(why) => Some(why),
        Known::Wanted => panic!("asked for, and still not known"),
    }
}

fn results() -> Need {
    Need::Results(Topic::new("results"))
}

#[tokio::test]
async fn a_schema_is_asked_for_once_however_many_records_want_it() {
    let registry = Registry::start().await;
    registry.has(7, "orders-value", &order());
    registry.is(Mood::Slow(Duration::from_millis(100)));
    let schemas = schemas(&registry);
    assert!(matches!(schemas.reader(7), Known::Wanted));
    let need = Need::Reader(7);
    futures::future::join_all((0..200).map(|_| schemas.obtain(&need)))
        .await
        .into_iter()
        .for_each(|r| r.unwrap());
    assert_eq!(refused(&schemas, 7).await, None);
    assert_eq!(registry.asked(), ["GET /schemas/ids/7"]);
}

#[tokio::test]
async fn a_registry_that_makes_no_sense_is_away_and_says_nothing_of_a_schema() {
    let registry = Registry::start().await;
    registry.has(7, "orders-value", &order());
    let moods = [
        (Mood::Down, "answers 503: leader not known"),
        (Mood::Guarded("Basic nobody"), "answers 401: Unauthorized"),
        (Mood::Slow(Duration::from_secs(5)), "does not answer in time"),
        (Mood::Says(404, b"<html>no such page</html>".to_vec()), "answers 404"),
        (
            Mood::Says(404, br#"{"error_code":404,"message":"HTTP 404 Not Found"}"#.to_vec()),
            "answers 404: HTTP 404",
        ),
        (Mood::Says(200, b"<html>please log in</html>".to_vec()), "makes no sense"),
        (Mood::Says(200, b"{}".to_vec()), "makes no sense"),
        (Mood::Says(200, br#"{"schema":7}"#.to_vec()), "makes no sense"),
        (Mood::Says(200, "[".repeat(100_000).into_bytes()), "makes no sense"),
        (Mood::Says(200, vec![b' '; 3 << 20]), "has more than"),
        (Mood::Says(302, vec![]), "answers 302"),
        (Mood::Says(500, b"\x1b[2J\xff".to_vec()), "answers 500"),
    ];
    for (mood, words) in moods {
        let schemas = schemas(&registry);
        registry.is(mood.clone());
        let Away(why) = schemas.obtain(&Need::Reader(7)).await.unwrap_err();
        assert!(why.contains(words), "{why}");
        assert!(matches!(schemas.reader(7), Known::Wanted), "{mood:?} is no answer");
        assert!(
            schemas.obtain(&results()).await.is_err() && schemas.results(&Topic::new("results")).is_none()
        );
        let writer = schemas.writer(&Topic::new("orders"), None).await;
        assert!(matches!(writer, Err(NoWriter::Away(_))), "{mood:?}");
        registry.is(Mood::Well);
        tokio::time::sleep(AGAIN).await;
        assert_eq!(refused(&schemas, 7).await, None, "after {mood:?}");
        assert_eq!(schemas.away(), None);
    }
    let nobody = Access::new("http://127.0.0.1:1", None, TIMEOUT, true).unwrap();
    let schemas = Schemas::new(Some(Arc::new(Source::Registry(tidegate::avro::Registry::new(nobody)))));
    assert!(schemas.obtain(&Need::Reader(7)).await.unwrap_err().0.contains("cannot be reached"));
}

#[tokio::test]
async fn while_it_is_away_few_questions_are_asked() {
    let registry = Registry::start().await;
    registry.is(Mood::Down);
    let schemas = schemas(&registry);
    let needs: Vec<Need> = (0..50).map(Need::Reader).collect();
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        let told = futures::future::join_all(needs.iter().map(|need| schemas.obtain(need))).await;
        assert!(told.iter().all(Result::is_err));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!((2..=6).contains(&registry.asked().len()), "{}", registry.asked().len());
}

#[tokio::test]
async fn an_id_that_it_does_not_know_is_refused_only_after_it_has_said_so_three_times() {
    let registry = Registry::start().await;
    let schemas = schemas(&registry);
    let (need, late) = (Need::Reader(9), Need::Reader(7));
    let why = refused(&schemas, 9).await.unwrap();
    assert_eq!(why, "schema 9: Schema not found");
    assert_eq!(registry.asked(), ["GET /schemas/ids/9"; 3]);
    // Believed for a while.
    schemas.obtain(&need).await.unwrap();
    assert_eq!(registry.asked().len(), 3);
    // A node that hears of a new schema a moment late loses no record.
    let (obtained, ()) = tokio::join!(schemas.obtain(&late), async {
        tokio::time::sleep(Duration::from_millis(250)).await;
        registry.has(7, "orders-value", &order());
    });
    obtained.unwrap();
    assert_eq!(refused(&schemas, 7).await, None);
}

#[tokio::test]
async fn a_schema_that_is_none_of_avro_is_refused_and_one_that_refers_to_others_is_read() {
    let registry = Registry::start().await;
    let text = |schema: &Value| Value::from(schema.to_string());
    let line = json!({ "type": "array", "items": "shop.Money" });
    let cart = json!({ "type": "record", "name": "Cart", "namespace": "shop", "fields": [{ "name": "lines", "type": line }] });
    let money = json!({ "type": "record", "name": "Money", "namespace": "shop", "fields": [{ "name": "cents", "type": "long" }] });
    registry.has(1, "money-value", &money);
    let refers = |version: i64| json!({ "schema": text(&cart), "references": [{ "name": "shop.Money", "subject": "money-value", "version": version }] });
    registry.answers(2, refers(1));
    registry.answers(3, refers(8));
    registry.answers(4, json!({ "schema": "{}", "schemaType": "JSON" }));
    registry.answers(5, json!({ "schema": "{\"type\":\"recor\"}" }));
    registry.answers(6, json!({ "schema": text(&cart) }));
    let schemas = schemas(&registry);
    assert_eq!(refused(&schemas, 2).await, None);
    let Known::Schema(cart) = schemas.reader(2) else { panic!() };
    assert_eq!(cart.decode(&[2, 10, 0]).unwrap(), json!({ "lines": [{ "cents": 5 }] }));
    for (id, words) in [
        (3, "refers to one that is not there"),
        (4, "a schema of type JSON, not Avro"),
        (5, "not an Avro schema"),
        (6, "Money"),
    ] {
        let why = refused(&schemas, id).await.unwrap();
        assert!(why.starts_with(&format!("schema {id}: ")) && why.contains(words), "{why}");
    }
    // Each refers to itself, for ever.
    registry.has(30, "circle-value", &money);
    registry.answers(30, json!({ "schema": text(&cart_of("A")), "references": [{ "name": "x", "subject": "circle-value", "version": 1 }] }));
    assert!(refused(&schemas, 30).await.is_some());
    assert!(registry.asked().len() < 30);
}

fn cart_of(name: &str) -> Value {
    json!({ "type": "record", "name": name, "fields": [{ "name": "b", "type": "B" }] })
}

#[tokio::test]
async fn it_is_told_who_asks_by_name_or_by_token() {
    let registry = Registry::start().await;
    registry.has(7, "orders-value", &order());
    let secret = |text: &str| SecretString::from(text.to_owned());
    for (auth, said) in [
        (Auth::Basic { user: "ada".into(), password: secret("word") }, "Basic YWRhOndvcmQ="),
        (Auth::Bearer(secret("t0ken")), "Bearer t0ken"),
    ] {
        registry.is(Mood::Guarded(said));
        assert_eq!(refused(&access(&registry, Some(auth), true), 7).await, None, "{said}");
    }
    for wrong in ["ftp://x", "registry:8081", "http://ada:word@x", "http://x/?key=1", ""] {
        assert!(Access::new(wrong, None, TIMEOUT, true).is_none(), "{wrong}");
    }
}

#[tokio::test]
async fn the_schema_of_results_is_registered_once_per_subject_or_looked_up_where_that_is_wished() {
    let registry = Registry::start().await;
    let looks = access(&registry, None, false);
    let Away(why) = looks.obtain(&results()).await.unwrap_err();
    assert!(why.contains("`results-value`"), "{why}");
    assert_eq!(registry.latest("results-value"), None);
    let registers = schemas(&registry);
    registers.obtain(&results()).await.unwrap();
    let (id, schema) = registry.latest("results-value").unwrap();
    assert_eq!(
        (registers.results(&Topic::new("results")), schema["name"].as_str()),
        (Some(id), Some("Result"))
    );
    // Another process, and one that may only look.
    for other in [schemas(&registry), looks] {
        other.obtain(&results()).await.unwrap();
        assert_eq!(other.results(&Topic::new("results")), Some(id));
    }
    registry.is(Mood::Says(
        409,
        br#"{"error_code":409,"message":"incompatible with an earlier schema"}"#.to_vec(),
    ));
    let Away(why) = schemas(&registry).obtain(&results()).await.unwrap_err();
    assert!(why.contains("409: incompatible"), "tasks wait, and are told why: {why}");
}

#[tokio::test]
async fn intake_writes_with_the_latest_schema_of_the_subject_or_with_the_one_that_is_named() {
    let registry = Registry::start().await;
    let schemas = schemas(&registry);
    let topic = Topic::new("orders");
    let told = schemas.writer(&topic, None).await;
    assert!(
        matches!(&told, Err(NoWriter::None(why)) if why.contains("Subject not found")),
        "{:?}",
        told.err()
    );
    registry.has(7, "orders-value", &order());
    registry.has(8, "orders-value", &json!("string"));
    assert_eq!(schemas.writer(&topic, None).await.map(|(id, _)| id).ok(), Some(8));
    assert_eq!(schemas.writer(&topic, Some(7)).await.map(|(id, _)| id).ok(), Some(7));
    assert!(matches!(schemas.writer(&topic, Some(99)).await, Err(NoWriter::None(_))));
    registry.is(Mood::Down);
    assert_eq!(schemas.writer(&topic, None).await.map(|(id, _)| id).ok(), Some(8), "known already");
}
