//! The simulated broker and store for processes of their own: each place a world, over a socket, on real time
//! and without faults of its own: what dies there is the process that asks.
//!
//! A line that ends is a process that died: its member stays in the group until the session is over, and its
//! transaction open until its time is up. It decides nothing.

use super::super::client::{Broker as _, Connection, Heard, Order, Store as _};
use super::wire::{Line, Question, Said, Told, line};
use super::{Process, Reached, SimulatedBroker, SimulatedLog, SimulatedStore, World};
use crate::engine::Log as _;
use crate::task::Topic;
use futures::future::{BoxFuture, FutureExt as _};
use futures::stream::{FuturesOrdered, StreamExt as _};
use serde::Serialize;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// What an orderly end may take: the orders before it, each with its delay.
const LEAVE: Duration = Duration::from_secs(5);

/// What one installation sees.
struct Place {
    world: Arc<World>,
    store: Arc<SimulatedStore>,
    log: Arc<SimulatedLog>,
    /// Each line is a process of its own to the world.
    lines: AtomicU32,
    _nature: JoinSet<()>,
}

impl Place {
    fn new(session: Duration, window: Duration) -> Arc<Self> {
        let world = World::new(0, &[]);
        world.at_ease(session);
        let store = SimulatedStore::new(world.clone(), window);
        let mut nature = JoinSet::new();
        nature.spawn(world.clone().run());
        nature.spawn(store.clone().run());
        let log = SimulatedLog::new(world.clone());
        Arc::new(Place { world, store, log, lines: AtomicU32::new(0), _nature: nature })
    }

    fn next(&self) -> Process {
        Process(self.lines.fetch_add(1, Ordering::Relaxed))
    }
}

/// Serves whoever connects, until it is dropped. `session`: how long a member that is not heard of is kept.
pub async fn serve(listener: TcpListener, session: Duration) {
    let mut places: BTreeMap<String, Arc<Place>> = BTreeMap::new();
    let (opened, mut opens) = tokio::sync::mpsc::unbounded_channel();
    let mut lines = JoinSet::new();
    loop {
        tokio::select! {
            Ok((socket, _)) = listener.accept() => {
                let (mut line, carrier) = line();
                lines.spawn(carrier.carry(socket));
                let opened = opened.clone();
                lines.spawn(async move {
                    if let Some(first) = line.hear().await {
                        // Ours ends later.
                        let _ = opened.send((first, line));
                    }
                });
            }
            Some((first, line)) = opens.recv() => {
                let mut at = |name, window| {
                    places.entry(name).or_insert_with(|| Place::new(session, window)).clone()
                };
                match first {
                    // Whoever joins has asked before.
                    Said::Member { place, group, topics } => {
                        lines.spawn(member(at(place, Duration::ZERO), line, group, topics));
                    }
                    Said::Asks { place, window } => {
                        lines.spawn(answers(at(place, window), line));
                    }
                    Said::Order(..) | Said::Question(_) => {}
                }
            }
            Some(_) = lines.join_next() => {}
        }
    }
}

async fn member(place: Arc<Place>, mut line: Line<Told, Said>, group: String, topics: Vec<Topic>) {
    let (process, world) = (place.next(), place.world.clone());
    let mut member = SimulatedBroker { world: world.clone(), process }.join(&group, &topics);
    // When each question to the group arrived, and when it was sent by the clock of its process.
    let mut asked: VecDeque<(Instant, Duration)> = VecDeque::new();
    let mut leaves = false;
    loop {
        tokio::select! {
            said = line.hear() => match said {
                Some(Said::Order(order, sent)) => {
                    match order {
                        Order::Confirm => asked.push_back((Instant::now(), sent)),
                        Order::Leave => leaves = true,
                        _ => {}
                    }
                    member.order(order);
                }
                Some(_) => {}
                None => break,
            },
            heard = member.heard() => {
                let mut sent = None;
                if let Heard::Confirmed { asked: at, .. } = &heard {
                    while asked.front().is_some_and(|(arrived, _)| arrived.into_std() <= *at) {
                        sent = asked.pop_front().map(|(_, sent)| sent);
                    }
                }
                line.say(Told::Heard(heard, sent));
            }
        }
    }
    let until = Instant::now() + LEAVE;
    while leaves && world.is_member(process) && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.kill(process);
}

async fn answers(place: Arc<Place>, mut line: Line<Told, Said>) {
    let process = place.next();
    let reached = Reached { store: place.store.clone(), process };
    let Ok(connection) = reached.connect().await else { return };
    let mut under_way = FuturesOrdered::new();
    loop {
        tokio::select! {
            said = line.hear() => match said {
                Some(Said::Question(question)) => {
                    under_way.push_back(answer(&place, &connection, question));
                }
                Some(_) => {}
                None => break,
            },
            Some(told) = under_way.next(), if !under_way.is_empty() => line.say(Told::Answer(told)),
        }
    }
    place.world.kill(process);
}

fn answer(
    place: &Place,
    connection: &Arc<dyn Connection>,
    question: Question,
) -> BoxFuture<'static, Vec<u8>> {
    let log = &place.log;
    match question {
        Question::Beat(instance) => told(connection.beat(instance)),
        Question::Call(instance, sent) => told(connection.call(instance, *sent)),
        Question::Look(keys) => told(connection.look(keys)),
        Question::List(after, max) => told(connection.list(after, max)),
        Question::Append(batch) => told(log.append(batch)),
        Question::Read(from, max) => told(log.read(from, max)),
        Question::Ends(topic) => told(log.ends(&topic)),
        Question::Since(at, since) => told(log.since(&at, since)),
        Question::Describe(topics) => {
            let found = place.world.describe(&topics);
            told(async { found })
        }
        Question::Make { topic, partitions, settings } => {
            place.world.make(&topic, partitions, settings);
            told(async {})
        }
    }
}

fn told(answer: impl Future<Output = impl Serialize> + Send + 'static) -> BoxFuture<'static, Vec<u8>> {
    // What cannot be written cannot be read either: whoever asked is told so there.
    answer.map(|answer| postcard::to_stdvec(&answer).unwrap_or_default()).boxed()
}

#[cfg(test)]
mod tests {
    use super::super::Remote;
    use super::*;
    use crate::engine::distributed::assignment;
    use crate::engine::distributed::client::{Member, Topics as _};
    use crate::engine::distributed::topology::Change;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// A simulator with one topic of two partitions.
    async fn simulator(session: Duration) -> (String, Topic, JoinSet<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut serving = JoinSet::new();
        serving.spawn(serve(listener, session));
        let topic = Topic::new("tasks.copy");
        let create = Change::Create { partitions: 2, settings: BTreeMap::new() };
        process(&address).carry_out(&topic, &create, None).await.unwrap();
        (address, topic, serving)
    }

    fn process(address: &str) -> Arc<Remote> {
        Remote::new(address, "here", "group", HOUR)
    }

    /// Waits until it is given this many partitions.
    async fn is_given(member: &mut Box<dyn Member>, count: usize) {
        let given = async {
            loop {
                if let Heard::Said(assignment::Said::Assigned(parts), _) = member.heard().await
                    && parts.len() == count
                {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), given).await.unwrap();
    }

    #[tokio::test]
    async fn whose_lines_end_has_died_and_is_missed_when_its_session_is_over() {
        let session = Duration::from_secs(1);
        let (address, topic, _serving) = simulator(session).await;
        let (dies, lives) = (process(&address), process(&address));
        let mut first = dies.join("worker", std::slice::from_ref(&topic));
        is_given(&mut first, 2).await;
        let died = Instant::now();
        drop((first, dies));
        let mut second = lives.join("worker", &[topic]);
        is_given(&mut second, 2).await;
        assert!(died.elapsed() >= session, "after {:?}", died.elapsed());
    }

    #[tokio::test]
    async fn who_leaves_in_order_is_not_waited_for() {
        let (address, topic, _serving) = simulator(HOUR).await;
        let (leaves, stays) = (process(&address), process(&address));
        let mut first = leaves.join("worker", std::slice::from_ref(&topic));
        is_given(&mut first, 2).await;
        first.order(Order::Leave);
        drop(first);
        leaves.left(HOUR).await;
        drop(leaves);
        let mut second = stays.join("worker", &[topic]);
        is_given(&mut second, 2).await;
    }

    #[tokio::test]
    async fn a_confirmation_says_when_the_question_was_sent_by_the_clock_of_who_sent_it() {
        let (address, topic, _serving) = simulator(HOUR).await;
        let asks = process(&address);
        let mut member = asks.join("worker", &[topic]);
        is_given(&mut member, 2).await;
        for _ in 0..3 {
            let before = std::time::Instant::now();
            member.order(Order::Confirm);
            let after = std::time::Instant::now();
            let asked = loop {
                if let Heard::Confirmed { asked, parts, .. } = member.heard().await {
                    assert_eq!(parts.len(), 2);
                    break asked;
                }
            };
            assert!((before..=after).contains(&asked), "{:?} too late", asked.duration_since(after));
        }
    }

    #[tokio::test]
    async fn places_share_nothing() {
        let (address, topic, _serving) = simulator(HOUR).await;
        let elsewhere = Remote::new(&address, "elsewhere", "group", HOUR);
        let topics = [topic];
        assert_eq!(elsewhere.describe(&topics).await.unwrap(), BTreeMap::new());
        assert_eq!(process(&address).describe(&topics).await.unwrap()[&topics[0]].partitions, 2);
    }
}
