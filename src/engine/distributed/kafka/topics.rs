//! Asks brokers what topics they have, and carries out what was decided about them.
//!
//! Decides nothing: `topology` does. One request at a time, each with a deadline.

use super::super::client::Topics;
use super::super::topology::{Change, Found};
use super::context::Quiet;
use super::properties::Properties;
use super::reaching;
use crate::task::{Position, Topic};
use futures::future::BoxFuture;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, ConfigSource, NewPartitions, NewTopic, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::metadata::MetadataTopic;
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use std::collections::BTreeMap;
use std::time::Duration;

/// For one request: brokers answer in milliseconds, a controller that moves in seconds.
const ANSWER: Duration = Duration::from_secs(20);

/// What is asked or done about topics.
pub struct TopicAdmin {
    admin: AdminClient<Quiet>,
    properties: Properties,
}

impl TopicAdmin {
    pub fn new(properties: Properties) -> Result<Self, String> {
        let config = properties.admin("tidegate-topics");
        let admin = config.create_with_context(Quiet).map_err(|error| error.to_string())?;
        Ok(TopicAdmin { admin, properties })
    }

    /// Waits for a first answer of the cluster. Or why there is none.
    pub async fn reach(&self) -> Result<(), String> {
        let properties = self.properties.clone();
        let asked = tokio::task::spawn_blocking(move || reaching::id(&properties, "tidegate-topics")).await;
        asked.unwrap_or_else(|lost| Err(lost.to_string())).map(drop)
    }

    /// Those of `topics` that exist, with all their settings.
    pub async fn describe(&self, topics: &[Topic]) -> Result<BTreeMap<Topic, Found>, String> {
        let mut found = self.partitions(topics).await?;
        if found.is_empty() {
            return Ok(found);
        }
        let asked: Vec<ResourceSpecifier<'_>> =
            found.keys().map(|topic| ResourceSpecifier::Topic(topic.as_str())).collect();
        let told = self.admin.describe_configs(&asked, &options()).await.map_err(|e| e.to_string())?;
        for (resource, there) in told.into_iter().zip(found.values_mut()) {
            let resource =
                resource.map_err(|code| format!("the settings of a topic are not told: {code}"))?;
            let settings = resource.entries.into_iter().filter_map(|entry| Some((entry.name, entry.value?)));
            there.settings = settings.collect();
        }
        Ok(found)
    }

    async fn partitions(&self, topics: &[Topic]) -> Result<BTreeMap<Topic, Found>, String> {
        let (properties, topics) = (self.properties.clone(), topics.to_vec());
        let asked = tokio::task::spawn_blocking(move || {
            let client: BaseConsumer<Quiet> = properties
                .reader("tidegate-topics", "tidegate-topics")
                .create_with_context(Quiet)
                .map_err(|error| error.to_string())?;
            // All of them: to ask for one that does not exist may create it.
            let all = client.fetch_metadata(None, ANSWER).map_err(|error| error.to_string())?;
            let there = all.topics().iter().filter(|t| topics.iter().any(|topic| topic.as_str() == t.name()));
            let found = |t: &MetadataTopic| Found {
                partitions: u32::try_from(t.partitions().len()).unwrap_or(u32::MAX),
                copies: t
                    .partitions()
                    .iter()
                    .map(|p| p.replicas().len())
                    .min()
                    .and_then(|n| u16::try_from(n).ok())
                    .unwrap_or(0),
                settings: BTreeMap::new(),
            };
            Ok(there.map(|t| (Topic::new(t.name()), found(t))).collect())
        });
        asked.await.unwrap_or_else(|lost| Err(lost.to_string()))
    }

    /// `replication`: copies of a new topic; `None`: as many as the brokers make by default.
    pub async fn carry_out(
        &self,
        topic: &Topic,
        change: &Change,
        replication: Option<u16>,
    ) -> Result<(), String> {
        let name = topic.as_str();
        let done = match change {
            Change::Create { partitions, settings } => {
                let partitions = i32::try_from(*partitions).unwrap_or(i32::MAX);
                let copies = replication.map_or(-1, i32::from);
                let new = NewTopic::new(name, partitions, TopicReplication::Fixed(copies));
                let new = settings.iter().fold(new, |new, (key, value)| new.set(key, value));
                self.admin.create_topics([&new], &options()).await
            }
            Change::Grow { to, .. } => {
                let new = NewPartitions::new(name, *to as usize);
                self.admin.create_partitions([&new], &options()).await
            }
            Change::Set { name: setting, to, .. } => return self.set(name, setting, to).await,
        };
        match done.map_err(|error| error.to_string())?.into_iter().next() {
            // Another process was faster.
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) | Some(Ok(_)) | None => Ok(()),
            Some(Err((_, code))) => Err(KafkaError::AdminOp(code).to_string()),
        }
    }

    /// Deletes what lies before each of these records, for good.
    pub async fn delete_before(&self, records: &[Position]) -> Result<(), String> {
        let mut list = TopicPartitionList::with_capacity(records.len());
        for Position { at, offset } in records {
            let index = i32::try_from(at.index).unwrap_or(i32::MAX);
            let offset = Offset::Offset(i64::try_from(*offset).map_err(|error| error.to_string())?);
            list.add_partition_offset(at.topic.as_str(), index, offset).map_err(|error| error.to_string())?;
        }
        let done = self.admin.delete_records(&list, &options()).await.map_err(|error| error.to_string())?;
        let failed = done.elements().iter().find_map(|part| part.error().err());
        failed.map_or(Ok(()), |error| Err(error.to_string()))
    }

    /// The request replaces all settings of the topic's own, so those that it has go with it.
    async fn set(&self, topic: &str, setting: &str, to: &str) -> Result<(), String> {
        let asked = [ResourceSpecifier::Topic(topic)];
        let told = self.admin.describe_configs(&asked, &options()).await.map_err(|e| e.to_string())?;
        let resource = told.into_iter().next().ok_or("the settings of the topic are not told")?;
        let entries = resource.map_err(|code| code.to_string())?.entries;
        let own = entries.iter().filter(|e| e.source == ConfigSource::DynamicTopic && e.name != setting);
        let own = own.filter_map(|entry| Some((entry.name.as_str(), entry.value.as_deref()?)));
        let alter = own.fold(AlterConfig::new(ResourceSpecifier::Topic(topic)), |a, (k, v)| a.set(k, v));
        let alter = alter.set(setting, to);
        let done = self.admin.alter_configs([&alter], &options()).await.map_err(|e| e.to_string())?;
        match done.into_iter().next() {
            Some(Err((_, code))) => Err(KafkaError::AdminOp(code).to_string()),
            _ => Ok(()),
        }
    }
}

impl Topics for TopicAdmin {
    fn describe<'a>(&'a self, topics: &'a [Topic]) -> BoxFuture<'a, Result<BTreeMap<Topic, Found>, String>> {
        Box::pin(self.describe(topics))
    }

    fn carry_out<'a>(
        &'a self,
        topic: &'a Topic,
        change: &'a Change,
        replication: Option<u16>,
    ) -> BoxFuture<'a, Result<(), String>> {
        Box::pin(self.carry_out(topic, change, replication))
    }
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(ANSWER)).operation_timeout(Some(ANSWER))
}
