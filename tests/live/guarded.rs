//! A broker behind TLS and SASL: with the right words work is done, and who is refused is told why and where to
//! mend it, and no secret.

use crate::fleet::{Fleet, good, keys};
use crate::rig::kafka_broker::Broker;
use crate::rig::redis_server::{ALWAYS, Server};
use crate::rig::script::SOON;

const PASSWORDS: [&str; 2] = ["wombat-plain", "wombat-scram"];
const MECHANISMS: [&str; 2] = ["PLAIN", "SCRAM-SHA-256"];

/// Clients of the fleet go to the guarded listener from now on, with these properties; an empty one is left out.
fn told(fleet: &Fleet, broker: &Broker, config: &str, properties: &[(&str, &str)]) {
    let given = properties.iter().filter(|(_, value)| !value.is_empty());
    let given: String = given.map(|(name, value)| format!("\"{name}\" = \"{value}\", ")).collect();
    let at = |address: &str| format!("kafka = \"{address}\"");
    let config = config
        .replace(&at(&broker.address), &at(&broker.guarded_address()))
        .replace("properties = { ", &format!("properties = {{ {given}"));
    std::fs::write(fleet.place.config(), config).unwrap();
}

fn guarded<'a>(mechanism: &'a str, ca: &'a str) -> Vec<(&'static str, &'a str)> {
    vec![
        ("security.protocol", "sasl_ssl"),
        ("ssl.ca.location", ca),
        ("sasl.mechanism", mechanism),
        ("sasl.username", "tidegate"),
        ("sasl.password", "env:SECRET_OF_THE_TEST"),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_behind_tls_and_sasl_is_worked_on_and_whoever_it_refuses_is_told_what_to_mend() {
    let (broker, redis) = (Broker::guarded(PASSWORDS), Server::start_own(&ALWAYS));
    let mut fleet = Fleet::on(&broker.address, &redis.url(), "", |_| good()).await;
    let config = std::fs::read_to_string(fleet.place.config()).unwrap();
    let (ca, other) = (broker.certificate("broker"), broker.certificate("other"));
    let (ca, other) = (ca.to_str().unwrap(), other.to_str().unwrap());
    let mut sent = Vec::new();
    for (mechanism, password) in MECHANISMS.into_iter().zip(PASSWORDS) {
        told(&fleet, &broker, &config, &guarded(mechanism, ca));
        let mut member = fleet.start_with(&[("SECRET_OF_THE_TEST", password)]).await;
        sent.push(mechanism);
        fleet.send(&[mechanism]);
        fleet.one_result_each(&keys(sent.clone()), SOON).await;
        assert!(member.process.stop(SOON).success(), "{}", member.process.words());
        assert!(!member.process.words().contains(password), "{}", member.process.words());
    }

    let [plain, scram] = MECHANISMS;
    let cases = [
        // Each password is right for the other mechanism.
        ("a wrong password", guarded(plain, ca), PASSWORDS[1], "Invalid username or password"),
        (
            "a wrong password",
            guarded(scram, ca),
            PASSWORDS[0],
            "invalid credentials with SASL mechanism SCRAM",
        ),
        (
            "a mechanism it has not",
            guarded("SCRAM-SHA-512", ca),
            PASSWORDS[1],
            "mechanisms: PLAIN,SCRAM-SHA-256",
        ),
        (
            "somebody else vouches",
            guarded(plain, other),
            PASSWORDS[0],
            "verify that ssl.ca.location is correctly",
        ),
        ("nobody vouches", guarded(plain, ""), PASSWORDS[0], "verify that ssl.ca.location is correctly"),
        ("no TLS", vec![], "", "perhaps it expects TLS, see `security.protocol`"),
    ];
    for (what, properties, password, words) in cases {
        told(&fleet, &broker, &config, &properties);
        let (code, said) = fleet.refused(&[("SECRET_OF_THE_TEST", password)]);
        assert_eq!(code, 1, "{what}: {said}");
        let at = broker.guarded_address();
        assert!(said.contains(&format!("Kafka at {at} cannot be used")), "{what}: {said}");
        assert!(said.contains(words), "{what}: {said}");
        assert!(said.contains("mend `[engine] kafka` and `properties`"), "{what}: {said}");
        assert!(password.is_empty() || !said.contains(password), "{what}: {said}");
    }
    fleet.one_result_each(&keys(sent), SOON).await;
    assert_eq!(fleet.calls().into_values().sum::<usize>(), 2);
}
