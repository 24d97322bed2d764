//! GossipSub: what the commands ask of it, and what it tells.
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use libp2p::{
    gossipsub::{
        Behaviour, ConfigBuilder, Event, IdentTopic, Message, MessageAcceptance, MessageAuthenticity, MessageId,
        TopicHash, ValidationMode, Version,
    },
    identity::Keypair,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::stack::Failure;

pub type Reply = oneshot::Sender<Result<Value, String>>;
pub type Question = Box<dyn FnOnce(&mut Behaviour) -> Result<Value, String> + Send>;

#[derive(Clone)]
pub struct Options {
    pub kind: String,
    pub sign: String,
    pub version: String,
    pub heartbeat_ms: u64,
    pub idontwant_bytes: usize,
    pub ids: String,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kind: String::new(),
            sign: "strict".to_owned(),
            version: "1.3.0".to_owned(),
            heartbeat_ms: 1000,
            idontwant_bytes: 1024,
            ids: "spec".to_owned(),
        }
    }
}

/// The id that the specification and go have; the library's own is text.
fn spec_id(message: &Message) -> MessageId {
    match (message.source, message.sequence_number) {
        (Some(source), Some(seqno)) => MessageId([source.to_bytes(), seqno.to_be_bytes().to_vec()].concat()),
        _ => MessageId(Sha256::digest(&message.data).to_vec()),
    }
}

pub fn behaviour(keypair: &Keypair, options: &Options) -> Result<Behaviour, Failure> {
    if options.kind != "gossip" {
        return Err(format!("no such pubsub: {}", options.kind).into());
    }
    let heartbeat = Duration::from_millis(options.heartbeat_ms);
    let mut config = ConfigBuilder::default();
    config
        .heartbeat_interval(heartbeat)
        .heartbeat_initial_delay(heartbeat.min(Duration::from_millis(100)))
        .idontwant_message_size_threshold(options.idontwant_bytes)
        .max_transmit_size(1 << 20)
        .flood_publish(false)
        .validate_messages();
    match options.version.as_str() {
        "1.3.0" => {}
        "1.1.0" => drop(config.protocol_id_prefix("/meshsub")),
        "1.0.0" => drop(config.protocol_id("/meshsub/1.0.0", Version::V1_0)),
        other => return Err(format!("this library can't be held to pubsub version {other}").into()),
    }
    config.support_floodsub();
    if options.ids == "spec" || options.sign == "none" {
        config.message_id_fn(spec_id);
    }
    let authenticity = match options.sign.as_str() {
        "strict" => MessageAuthenticity::Signed(keypair.clone()),
        "none" => {
            config.validation_mode(ValidationMode::Anonymous);
            MessageAuthenticity::Anonymous
        }
        other => return Err(format!("no such signature policy: {other}").into()),
    };
    Ok(Behaviour::new(authenticity, config.build()?)?)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sorted(ids: impl Iterator<Item = String>) -> Value {
    let mut list: Vec<String> = ids.collect();
    list.sort();
    list.into()
}

/// None: it is no command of ours.
pub fn question(request: &Value) -> Option<Result<Question, Failure>> {
    let name = request["topic"].as_str().unwrap_or_default().to_owned();
    let topic = IdentTopic::new(name.clone());
    let hash = TopicHash::from_raw(name.clone());
    let question: Question = match request["cmd"].as_str().unwrap_or_default() {
        "sub" => Box::new(move |g| g.subscribe(&topic).map(|_| json!({})).map_err(|e| e.to_string())),
        "unsub" => Box::new(move |g| match g.unsubscribe(&topic) {
            true => Ok(json!({})),
            false => Err(format!("not subscribed to {name}")),
        }),
        "pub" => {
            let data = match STANDARD.decode(request["data"].as_str().unwrap_or_default()) {
                Ok(data) => data,
                Err(error) => return Some(Err(error.into())),
            };
            Box::new(move |g| match g.publish(topic, data) {
                Ok(id) => Ok(json!({ "id": hex(&id.0) })),
                Err(error) => Err(error.to_string()),
            })
        }
        "topicPeers" => Box::new(move |g| {
            let peers = g.all_peers().filter(|(_, topics)| topics.contains(&&hash));
            Ok(json!({ "peers": sorted(peers.map(|(peer, _)| peer.to_string())) }))
        }),
        "mesh" => Box::new(move |g| Ok(json!({ "peers": sorted(g.mesh_peers(&hash).map(|peer| peer.to_string())) }))),
        "topics" => Box::new(|g| Ok(json!({ "topics": sorted(g.topics().map(|topic| topic.to_string())) }))),
        _ => return None,
    };
    Some(Ok(question))
}

/// Gives the verdict that a message asks for, and tells of it when it was accepted.
pub fn on_event(gossip: &mut Behaviour, event: Event) -> Option<Value> {
    let Event::Message { propagation_source, message_id, message } = event else { return None };
    let verdict = match message.data.get(..7) {
        Some(b"reject:") => MessageAcceptance::Reject,
        Some(b"ignore:") => MessageAcceptance::Ignore,
        _ => MessageAcceptance::Accept,
    };
    let accepted = matches!(verdict, MessageAcceptance::Accept);
    gossip.report_message_validation_result(&message_id, &propagation_source, verdict);
    accepted.then(|| {
        json!({
            "event": "message",
            "topic": message.topic.as_str(),
            "from": message.source.map(|peer| peer.to_string()),
            "seqno": message.sequence_number.map(|seqno| format!("{seqno:016x}")),
            "data": STANDARD.encode(&message.data),
            "id": hex(&message_id.0),
            "receivedFrom": propagation_source.to_string(),
        })
    })
}
