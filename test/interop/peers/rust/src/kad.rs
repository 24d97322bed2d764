//! Kademlia: queries, and what becomes of them.
use std::{collections::HashMap, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use libp2p::{
    PeerId, StreamProtocol,
    kad::{
        Behaviour, Config, Event, GetProvidersOk, GetRecordOk, Mode, ProgressStep, QueryId, QueryResult, Quorum,
        Record, RecordKey, store::MemoryStore,
    },
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::stack::Failure;

pub type Kad = Behaviour<MemoryStore>;
pub type Reply = oneshot::Sender<Result<Value, String>>;
/// Starts a query, or answers at once.
pub type Question = Box<dyn FnOnce(&mut Kad) -> Result<Started, String> + Send>;

pub enum Started {
    Query(QueryId),
    Done(Value),
}

pub fn protocol(network: &str) -> Result<StreamProtocol, Failure> {
    let name = match network {
        "amino" => "/ipfs/kad/1.0.0".to_owned(),
        "lan" => "/ipfs/lan/kad/1.0.0".to_owned(),
        prefix => format!("{prefix}/kad/1.0.0"),
    };
    Ok(StreamProtocol::try_from_owned(name)?)
}

pub fn behaviour(peer_id: PeerId, network: &str, mode: &str) -> Result<Kad, Failure> {
    let mut config = Config::new(protocol(network)?);
    config.set_query_timeout(Duration::from_secs(30));
    let mut kad = Kad::with_config(peer_id, MemoryStore::new(peer_id), config);
    kad.set_mode(Some(match mode {
        "server" => Mode::Server,
        "client" => Mode::Client,
        other => return Err(format!("no such kad mode: {other}").into()),
    }));
    Ok(kad)
}

fn bytes(request: &Value, name: &str) -> Result<Vec<u8>, Failure> {
    Ok(STANDARD.decode(request[name].as_str().unwrap_or_default())?)
}

/// The multihash of a CIDv1 in base32, which follows the version and the codec, a varint each.
fn multihash(request: &Value) -> Result<Vec<u8>, Failure> {
    let bytes =
        base32(request["cid"].as_str().and_then(|text| text.strip_prefix('b')).ok_or("want a CIDv1 in base32")?)?;
    let mut at = 0;
    for _ in 0..2 {
        while bytes.get(at).ok_or("the CID is cut short")? & 0x80 != 0 {
            at += 1;
        }
        at += 1;
    }
    Ok(bytes[at..].to_vec())
}

/// RFC 4648 in lower case, without padding.
fn base32(digits: &str) -> Result<Vec<u8>, Failure> {
    let (mut out, mut buffer, mut bits) = (Vec::new(), 0u32, 0);
    for c in digits.bytes() {
        let digit = match c {
            b'a'..=b'z' => c - b'a',
            b'2'..=b'7' => c - b'2' + 26,
            _ => return Err("no base32".into()),
        };
        buffer = buffer << 5 | u32::from(digit);
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            out.push((buffer >> bits) as u8);
            buffer &= (1 << bits) - 1;
        }
    }
    Ok(out)
}

/// None: it is no command of ours.
pub fn question(request: &Value) -> Option<Result<Question, Failure>> {
    let cmd = request["cmd"].as_str().unwrap_or_default();
    Some(match cmd {
        "provide" => multihash(request).map(|key| -> Question {
            Box::new(move |kad| {
                Ok(Started::Query(kad.start_providing(RecordKey::new(&key)).map_err(|e| e.to_string())?))
            })
        }),
        "findProviders" => multihash(request).map(|key| -> Question {
            Box::new(move |kad| Ok(Started::Query(kad.get_providers(RecordKey::new(&key)))))
        }),
        "findPeer" => request["peer"]
            .as_str()
            .unwrap_or_default()
            .parse::<PeerId>()
            .map_err(Into::into)
            .map(|peer| -> Question { Box::new(move |kad| Ok(Started::Query(kad.get_closest_peers(peer)))) }),
        "closestPeers" => bytes(request, "key")
            .map(|key| -> Question { Box::new(move |kad| Ok(Started::Query(kad.get_closest_peers(key)))) }),
        "putValue" => {
            bytes(request, "key").and_then(|key| Ok((key, bytes(request, "value")?))).map(|(key, value)| -> Question {
                Box::new(move |kad| {
                    let record = Record::new(RecordKey::new(&key), value);
                    Ok(Started::Query(kad.put_record(record, Quorum::One).map_err(|e| e.to_string())?))
                })
            })
        }
        "getValue" => bytes(request, "key")
            .map(|key| -> Question { Box::new(move |kad| Ok(Started::Query(kad.get_record(RecordKey::new(&key))))) }),
        "tableSize" => Ok(Box::new(|kad: &mut Kad| {
            let size: usize = kad.kbuckets().map(|bucket| bucket.num_entries()).sum();
            Ok(Started::Done(json!({ "size": size })))
        })),
        _ => return None,
    })
}

struct Running {
    reply: Reply,
    answer: Value,
    /// `findPeer` wants one of those found.
    wanted: Option<String>,
    failure: Option<String>,
}

/// Queries under way.
#[derive(Default)]
pub struct Queries(HashMap<QueryId, Running>);

impl Queries {
    pub fn begin(&mut self, kad: &mut Kad, question: Question, wanted: Option<String>, reply: Reply) {
        match question(kad) {
            Ok(Started::Query(id)) => {
                let answer = json!({ "providers": [], "peers": [] });
                self.0.insert(id, Running { reply, answer, wanted, failure: None });
            }
            Ok(Started::Done(answer)) => drop(reply.send(Ok(answer))),
            Err(error) => drop(reply.send(Err(error))),
        }
    }

    pub fn on_event(&mut self, event: Event) {
        let Event::OutboundQueryProgressed { id, result, step, .. } = event else { return };
        let Some(running) = self.0.get_mut(&id) else { return };
        running.take(result);
        let ProgressStep { last, .. } = step;
        if last {
            self.0.remove(&id).map(Running::finish);
        }
    }
}

impl Running {
    fn take(&mut self, result: QueryResult) {
        match result {
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                let list = self.answer["providers"].as_array_mut().expect("a list");
                for peer in providers {
                    let one = json!({ "peer": peer.to_string(), "addrs": [] });
                    if !list.contains(&one) {
                        list.push(one);
                    }
                }
            }
            QueryResult::GetProviders(Err(error)) => self.failure = Some(error.to_string()),
            QueryResult::GetClosestPeers(Ok(ok)) => {
                for info in ok.peers {
                    let id = info.peer_id.to_string();
                    let addrs: Vec<String> = info.addrs.iter().map(|addr| addr.to_string()).collect();
                    if self.wanted.as_ref() == Some(&id) {
                        self.answer["peer"] = id.clone().into();
                        self.answer["addrs"] = addrs.into();
                    }
                    self.answer["peers"].as_array_mut().expect("a list").push(id.into());
                }
            }
            QueryResult::GetClosestPeers(Err(error)) => self.failure = Some(error.to_string()),
            QueryResult::GetRecord(Ok(GetRecordOk::FoundRecord(found))) => {
                self.answer["value"] = STANDARD.encode(found.record.value).into();
            }
            QueryResult::GetRecord(Err(error)) => self.failure = Some(error.to_string()),
            QueryResult::PutRecord(Err(error)) => self.failure = Some(error.to_string()),
            QueryResult::StartProviding(Err(error)) => self.failure = Some(error.to_string()),
            _ => {}
        }
    }

    fn finish(self) {
        let found = self.wanted.is_none() || !self.answer["peer"].is_null();
        let result = match self.failure {
            Some(failure) if self.answer["value"].is_null() => Err(failure),
            _ if !found => Err("not found".to_owned()),
            _ => Ok(self.answer),
        };
        let _ = self.reply.send(result);
    }
}
