//! A swarm that runs in a task of its own and takes orders.
use std::{collections::HashMap, error::Error, time::Duration};

use futures::StreamExt;
use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol, Swarm, gossipsub, identify,
    multiaddr::Protocol,
    ping,
    swarm::{
        self, ConnectionId, NetworkBehaviour, SwarmEvent, behaviour::toggle::Toggle, dial_opts::DialOpts,
        dial_opts::PeerCondition,
    },
};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use crate::{
    kad::{self, Kad, Queries, Question},
    pubsub, raw,
    stack::{Failure, Stack},
};

#[derive(NetworkBehaviour)]
struct Behaviour {
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    raw: raw::Behaviour,
    kad: Toggle<Kad>,
    pubsub: Toggle<gossipsub::Behaviour>,
}

type Dialled = oneshot::Sender<Result<(), String>>;

enum Order {
    Dial(PeerId, Multiaddr, Dialled),
    Disconnect(PeerId, oneshot::Sender<()>),
    /// A question to Kademlia, and the peer that it is about where one is wanted.
    Ask(Question, Option<String>, kad::Reply),
    Gossip(pubsub::Question, pubsub::Reply),
}

pub struct Host {
    pub peer_id: PeerId,
    /// With the peer id, in the order they were asked for.
    pub addrs: Vec<String>,
    pub connections: raw::Connections,
    orders: mpsc::UnboundedSender<Order>,
}

impl Host {
    /// The number of the node is told with its events.
    pub async fn start(stack: &Stack, listen: &[String], node: usize) -> Result<Self, Failure> {
        let keypair = stack.keypair()?;
        let peer_id = keypair.public().to_peer_id();
        let version = "ipfs/0.1.0".to_owned();
        // Its record has the domain and type of no other implementation: js-libp2p refuses it with all of identify.
        let about = if stack.signed_record {
            identify::Config::new_with_signed_peer_record(version, &keypair)
        } else {
            identify::Config::new(version, keypair.public())
        };
        let about = about.with_agent_version("rhiza-lab-rust".to_owned());
        let behaviour = Behaviour {
            identify: identify::Behaviour::new(about),
            // The ping command has streams of its own; this one answers.
            ping: ping::Behaviour::new(ping::Config::new().with_interval(Duration::from_secs(3600))),
            raw: raw::Behaviour::default(),
            kad: match &stack.kad {
                Some(network) => Some(kad::behaviour(peer_id, network, &stack.kad_mode)?),
                None => None,
            }
            .into(),
            pubsub: match stack.pubsub.kind.as_str() {
                "" => None,
                _ => Some(pubsub::behaviour(&keypair, &stack.pubsub)?),
            }
            .into(),
        };
        let connections = behaviour.raw.connections.clone();
        let config = swarm::Config::with_tokio_executor().with_max_negotiating_inbound_streams(100_000);
        let mut swarm = Swarm::new(stack.transport(&keypair)?, behaviour, peer_id, config);
        let mut addrs = Vec::new();
        for addr in listen {
            swarm.listen_on(addr.parse()?)?;
            loop {
                match swarm.select_next_some().await {
                    SwarmEvent::NewListenAddr { address, .. } => {
                        addrs.push(format!("{address}/p2p/{peer_id}"));
                        // What Kademlia provides with.
                        if stack.kad.is_some() {
                            swarm.add_external_address(address);
                        }
                        break;
                    }
                    SwarmEvent::ListenerClosed { reason, .. } => return Err(format!("{addr}: {reason:?}").into()),
                    _ => {}
                }
            }
        }
        let (orders, taken) = mpsc::unbounded_channel();
        let protocol = stack.kad.as_deref().map(kad::protocol).transpose()?;
        tokio::spawn(run(swarm, taken, protocol, node));
        Ok(Self { peer_id, addrs, connections, orders })
    }

    /// Dials this address and no other, unless there is a connection.
    pub async fn connect(&self, addr: &str) -> Result<PeerId, Failure> {
        let addr: Multiaddr = addr.parse()?;
        let Some(Protocol::P2p(peer)) = addr.iter().last() else {
            return Err(format!("no peer id in {addr}").into());
        };
        let (dialled, result) = oneshot::channel();
        self.orders.send(Order::Dial(peer, addr, dialled)).map_err(|_| "the host stopped")?;
        result.await??;
        Ok(peer)
    }

    pub async fn disconnect(&self, peer: PeerId) -> Result<(), Failure> {
        let (done, result) = oneshot::channel();
        self.orders.send(Order::Disconnect(peer, done)).map_err(|_| "the host stopped")?;
        Ok(result.await?)
    }

    pub async fn ask(&self, question: Question, wanted: Option<String>) -> Result<Value, Failure> {
        let (reply, result) = oneshot::channel();
        self.orders.send(Order::Ask(question, wanted, reply)).map_err(|_| "the host stopped")?;
        Ok(result.await??)
    }

    pub async fn gossip(&self, question: pubsub::Question) -> Result<Value, Failure> {
        let (reply, result) = oneshot::channel();
        self.orders.send(Order::Gossip(question, reply)).map_err(|_| "the host stopped")?;
        Ok(result.await??)
    }

    pub async fn open(&self, peer: PeerId, protocol: &str) -> Result<Stream, Failure> {
        Ok(self.connections.open(peer, protocol).await?)
    }
}

/// Ends when the host is dropped, and its connections with it.
async fn run(
    mut swarm: Swarm<Behaviour>,
    mut orders: mpsc::UnboundedReceiver<Order>,
    kad_protocol: Option<StreamProtocol>,
    node: usize,
) {
    let mut queries = Queries::default();
    let mut dials: HashMap<ConnectionId, Dialled> = HashMap::new();
    let mut closing: Vec<(PeerId, oneshot::Sender<()>)> = Vec::new();
    loop {
        tokio::select! {
            order = orders.recv() => match order {
                None => return,
                Some(Order::Dial(peer, _, dialled)) if swarm.is_connected(&peer) => {
                    let _ = dialled.send(Ok(()));
                }
                Some(Order::Dial(peer, addr, dialled)) => {
                    let opts = DialOpts::peer_id(peer).addresses(vec![addr]).condition(PeerCondition::Always).build();
                    let id = opts.connection_id();
                    match swarm.dial(opts) {
                        Ok(()) => drop(dials.insert(id, dialled)),
                        Err(error) => drop(dialled.send(Err(reason(&error)))),
                    }
                }
                Some(Order::Disconnect(peer, done)) => match swarm.disconnect_peer_id(peer) {
                    Ok(()) => closing.push((peer, done)),
                    Err(()) => drop(done.send(())),
                },
                Some(Order::Ask(question, wanted, reply)) => match swarm.behaviour_mut().kad.as_mut() {
                    Some(kad) => queries.begin(kad, question, wanted, reply),
                    None => drop(reply.send(Err("this peer runs without --kad".to_owned()))),
                },
                Some(Order::Gossip(question, reply)) => drop(reply.send(match swarm.behaviour_mut().pubsub.as_mut() {
                    Some(gossip) => question(gossip),
                    None => Err("this peer runs without --pubsub".to_owned()),
                })),
            },
            event = swarm.select_next_some() => match event {
                SwarmEvent::Behaviour(BehaviourEvent::Kad(event)) => queries.on_event(event),
                SwarmEvent::Behaviour(BehaviourEvent::Pubsub(event)) => {
                    let gossip = swarm.behaviour_mut().pubsub.as_mut();
                    if let Some(mut about) = gossip.and_then(|gossip| pubsub::on_event(gossip, event)) {
                        about["node"] = node.into();
                        crate::print(&about);
                    }
                }
                // Who serves it is asked; rust-libp2p leaves that to its user.
                SwarmEvent::Behaviour(BehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. })) => {
                    let serves = kad_protocol.as_ref().is_some_and(|name| info.protocols.contains(name));
                    if let (true, Some(kad)) = (serves, swarm.behaviour_mut().kad.as_mut()) {
                        for addr in info.listen_addrs {
                            kad.add_address(&peer_id, addr);
                        }
                    }
                }
                SwarmEvent::ConnectionEstablished { connection_id, .. } => {
                    if let Some(dialled) = dials.remove(&connection_id) {
                        let _ = dialled.send(Ok(()));
                    }
                }
                SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                    if let Some(dialled) = dials.remove(&connection_id) {
                        let _ = dialled.send(Err(reason(&error)));
                    }
                }
                SwarmEvent::IncomingConnectionError { error, .. } => eprintln!("inbound: {}", reason(&error)),
                SwarmEvent::ConnectionClosed { peer_id, num_established: 0, .. } => {
                    for (_, done) in closing.extract_if(.., |(peer, _)| *peer == peer_id) {
                        let _ = done.send(());
                    }
                }
                _ => {}
            },
        }
    }
}

/// An error with its causes, which Display alone keeps to itself.
fn reason(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}
