//! The client of a simulated broker and store that another process serves: it forwards what it is told, and
//! decides nothing.
//!
//! A line that breaks is as the end of a real client: its member is gone for good, a question unanswered.

use super::super::client::{Broken, Broker, Connection, Heard, Member, Order, Sent, Store, Topics};
use super::super::lock;
use super::super::topology::{Change, Found};
use super::wire::{Line, Question, Said, Told, line};
use crate::dedupe::{ClaimView, Instance};
use crate::engine::script::LedgerReply;
use crate::engine::{AppendError, Ends, Log, Output, TopicSpec, Unavailable};
use crate::task::{Partition, Position, Record, ScopedKey, Timestamp, Topic};
use futures::TryFutureExt as _;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;

/// How often followers look for what others have appended, as on Kafka.
const NEWS: Duration = Duration::from_millis(200);

/// One process's way to the simulator.
pub struct Remote {
    address: String,
    /// The installation, that shares nothing with any other.
    place: String,
    /// Begins the names of its groups.
    group: String,
    window: Duration,
    members: Mutex<JoinSet<()>>,
    others: Arc<Mutex<JoinSet<()>>>,
}

impl Remote {
    /// Connects to nothing yet.
    pub fn new(address: &str, place: &str, group: &str, window: Duration) -> Arc<Self> {
        Arc::new(Remote {
            address: address.to_owned(),
            place: place.to_owned(),
            group: group.to_owned(),
            window,
            members: Mutex::default(),
            others: Arc::default(),
        })
    }

    /// A line for questions.
    fn asks(&self) -> Asks<Arc<Asking>> {
        let (address, others) = (self.address.clone(), self.others.clone());
        let first = Said::Asks { place: self.place.clone(), window: self.window };
        Box::pin(async move {
            let socket = TcpStream::connect(&address).await.map_err(|error| Broken(error.to_string()))?;
            let ((line, carrier), (asking, asked)) = (line(), mpsc::unbounded_channel());
            line.say(first);
            let mut others = lock(&others);
            while others.try_join_next().is_some() {}
            others.spawn(carrier.carry(socket));
            others.spawn(ask_all(line, asked));
            Ok(Arc::new(Asking(asking)))
        })
    }

    fn about_topics<T>(&self, question: Question) -> BoxFuture<'static, Result<T, String>>
    where
        T: DeserializeOwned + Send + 'static,
    {
        let asks = self.asks();
        Box::pin(async move { asks.await?.ask(question).await }.map_err(|Broken(why)| why))
    }

    /// The port's log. Its followers are told by a task of this client.
    pub async fn log(&self, topics: &[TopicSpec]) -> Result<Arc<RemoteLog>, Broken> {
        let limits = topics.iter().map(|t| (t.topic.clone(), t.limit)).collect();
        let log = Arc::new(RemoteLog { asks: self.asks().await?, limits, news: watch::Sender::new(0) });
        let looking = log.clone();
        lock(&self.others).spawn(async move {
            loop {
                tokio::time::sleep(NEWS).await;
                looking.news.send_modify(|n| *n += 1);
            }
        });
        Ok(log)
    }

    /// Waits until every member that was told to has left its group, for so long at most.
    pub async fn left(&self, within: Duration) {
        let mut members = std::mem::take(&mut *lock(&self.members));
        // Whoever has not left by then is missed later.
        let _ = tokio::time::timeout(within, async { while members.join_next().await.is_some() {} }).await;
    }
}

impl Topics for Remote {
    fn describe<'a>(&'a self, topics: &'a [Topic]) -> BoxFuture<'a, Result<BTreeMap<Topic, Found>, String>> {
        self.about_topics(Question::Describe(topics.to_vec()))
    }

    fn carry_out<'a>(
        &'a self,
        topic: &'a Topic,
        change: &'a Change,
        _: Option<u16>,
    ) -> BoxFuture<'a, Result<(), String>> {
        let (partitions, settings) = match change {
            Change::Create { partitions, settings } => (*partitions, settings.clone()),
            Change::Grow { to, .. } => (*to, BTreeMap::new()),
            Change::Set { name, to, .. } => (0, BTreeMap::from([((*name).to_owned(), to.clone())])),
        };
        self.about_topics(Question::Make { topic: topic.clone(), partitions, settings })
    }
}

impl Broker for Remote {
    fn join(&self, name: &str, topics: &[Topic]) -> Box<dyn Member> {
        let (line, carrier) = line();
        let group = format!("{}.{name}", self.group);
        line.say(Said::Member { place: self.place.clone(), group, topics: topics.to_vec() });
        let connecting = TcpStream::connect(self.address.clone());
        lock(&self.members).spawn(async move {
            if let Ok(socket) = connecting.await {
                carrier.carry(socket).await;
            }
        });
        Box::new(RemoteMember { line, began: Instant::now(), gone: false })
    }
}

struct RemoteMember {
    line: Line<Said, Told>,
    began: Instant,
    gone: bool,
}

impl Member for RemoteMember {
    fn order(&mut self, order: Order) {
        self.line.say(Said::Order(order, self.began.elapsed()));
    }

    fn heard(&mut self) -> BoxFuture<'_, Heard> {
        Box::pin(async move {
            if self.gone {
                return std::future::pending().await;
            }
            loop {
                match self.line.hear().await {
                    Some(Told::Heard(Heard::Confirmed { member, parts, .. }, Some(asked))) => {
                        return Heard::Confirmed { asked: self.began + asked, member, parts };
                    }
                    // Nobody knows when that was asked.
                    Some(Told::Heard(Heard::Confirmed { .. }, None) | Told::Answer(_)) => {}
                    Some(Told::Heard(heard, _)) => return heard,
                    None => {
                        self.gone = true;
                        return Heard::Gone("the simulator cannot be reached".to_owned());
                    }
                }
            }
        })
    }
}

type Asked = (Question, oneshot::Sender<Vec<u8>>);

struct Asking(mpsc::UnboundedSender<Asked>);

impl Asking {
    async fn ask<T: DeserializeOwned>(&self, question: Question) -> Result<T, Broken> {
        let broken = |why: &str| Broken(format!("the simulator: {why}"));
        let (reply, answer) = oneshot::channel();
        self.0.send((question, reply)).map_err(|_| broken("the line has ended"))?;
        let answer = answer.await.map_err(|_| broken("the line has ended"))?;
        postcard::from_bytes(&answer).map_err(|error| broken(&error.to_string()))
    }
}

/// Until the line ends, or nobody can ask any more.
async fn ask_all(mut line: Line<Said, Told>, mut asked: mpsc::UnboundedReceiver<Asked>) {
    let mut waiting: VecDeque<oneshot::Sender<Vec<u8>>> = VecDeque::new();
    loop {
        tokio::select! {
            told = line.hear() => match (told, waiting.is_empty()) {
                (Some(Told::Answer(answer)), false) => {
                    // Who asked may have gone.
                    waiting.pop_front().map(|reply| reply.send(answer));
                }
                _ => return,
            },
            next = asked.recv() => match next {
                Some((question, reply)) => {
                    waiting.push_back(reply);
                    line.say(Said::Question(question));
                }
                None => return,
            },
        }
    }
}

struct RemoteConnection(Arc<Asking>);

type Asks<T> = BoxFuture<'static, Result<T, Broken>>;

impl RemoteConnection {
    fn ask<T: DeserializeOwned + Send + 'static>(&self, question: Question) -> Asks<T> {
        let asks = self.0.clone();
        Box::pin(async move { asks.ask::<Result<T, Broken>>(question).await? })
    }
}

impl Store for Remote {
    fn connect(&self) -> Asks<Arc<dyn Connection>> {
        let asks = self.asks();
        Box::pin(async move {
            let connection: Arc<dyn Connection> = Arc::new(RemoteConnection(asks.await?));
            Ok(connection)
        })
    }
}

impl Connection for RemoteConnection {
    fn beat(&self, instance: Instance) -> Asks<()> {
        self.ask(Question::Beat(instance))
    }

    fn call(&self, instance: Instance, sent: Sent) -> Asks<LedgerReply> {
        self.ask(Question::Call(instance, Box::new(sent)))
    }

    fn look(&self, keys: Vec<ScopedKey>) -> Asks<Vec<Option<ClaimView>>> {
        self.ask(Question::Look(keys))
    }

    fn list(&self, after: Option<ScopedKey>, max: usize) -> Asks<Vec<ClaimView>> {
        self.ask(Question::List(after, max))
    }
}

pub struct RemoteLog {
    asks: Arc<Asking>,
    limits: BTreeMap<Topic, usize>,
    news: watch::Sender<u64>,
}

impl RemoteLog {
    fn ask<T, E>(&self, question: Question) -> BoxFuture<'static, Result<T, E>>
    where
        T: DeserializeOwned + Send + 'static,
        E: DeserializeOwned + From<Unavailable> + Send + 'static,
    {
        let asks = self.asks.clone();
        Box::pin(async move {
            match asks.ask::<Result<T, E>>(question).await {
                Ok(answer) => answer,
                Err(Broken(why)) => Err(Unavailable(why).into()),
            }
        })
    }
}

impl Log for RemoteLog {
    fn append(&self, batch: Vec<Output>) -> BoxFuture<'static, Result<Vec<Position>, AppendError>> {
        match AppendError::of(&batch, &self.limits) {
            Some(error) => Box::pin(async { Err(error) }),
            None => self.ask(Question::Append(batch)),
        }
    }

    fn read(&self, from: Position, max: usize) -> BoxFuture<'static, Result<Vec<Record>, Unavailable>> {
        self.ask(Question::Read(from, max))
    }

    fn ends(&self, topic: &Topic) -> BoxFuture<'static, Result<Vec<Ends>, Unavailable>> {
        self.ask(Question::Ends(topic.clone()))
    }

    fn since(&self, at: &Partition, since: Timestamp) -> BoxFuture<'static, Result<u64, Unavailable>> {
        self.ask(Question::Since(at.clone(), since))
    }

    fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }
}
