//! A behaviour that hands out raw streams. libp2p-stream has one, which drops inbound streams that come faster than
//! they are taken and opens outbound ones one after another.
use std::{
    collections::HashMap,
    convert::Infallible,
    future::{Ready, ready},
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use libp2p::{
    Multiaddr, PeerId, Stream, StreamProtocol,
    core::{
        Endpoint, UpgradeInfo,
        transport::PortUse,
        upgrade::{InboundUpgrade, OutboundUpgrade},
    },
    swarm::{
        ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
        StreamUpgradeError, SubstreamProtocol, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
        handler::ConnectionEvent,
    },
};
use tokio::sync::{mpsc, oneshot};

use crate::protocols;

type Opened = oneshot::Sender<Result<Stream, String>>;
type Opens = mpsc::UnboundedSender<(StreamProtocol, Opened)>;

type Live = HashMap<PeerId, Vec<(ConnectionId, Opens)>>;

/// Where the streams of every connection are opened.
#[derive(Clone, Default)]
pub struct Connections(Arc<Mutex<Live>>);

impl Connections {
    pub fn counts(&self) -> Vec<(PeerId, usize)> {
        self.0.lock().unwrap().iter().map(|(peer, list)| (*peer, list.len())).collect()
    }

    pub async fn open(&self, peer: PeerId, protocol: &str) -> Result<Stream, String> {
        let name = StreamProtocol::try_from_owned(protocol.to_owned()).map_err(|e| e.to_string())?;
        let (opened, stream) = oneshot::channel();
        match self.0.lock().unwrap().get(&peer).and_then(|list| list.first()) {
            Some((_, opens)) => opens.send((name, opened)).map_err(|_| "the connection closed")?,
            None => return Err(format!("not connected to {peer}")),
        }
        stream.await.map_err(|_| "the connection closed".to_owned())?
    }

    fn add(&self, id: ConnectionId, peer: PeerId) -> Handler {
        let (opens, wanted) = mpsc::unbounded_channel();
        self.0.lock().unwrap().entry(peer).or_default().push((id, opens));
        Handler { wanted }
    }

    fn remove(&self, id: ConnectionId, peer: PeerId) {
        let mut all = self.0.lock().unwrap();
        let Some(list) = all.get_mut(&peer) else { return };
        list.retain(|(other, _)| *other != id);
        if list.is_empty() {
            all.remove(&peer);
        }
    }
}

#[derive(Default)]
pub struct Behaviour {
    pub connections: Connections,
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.connections.add(id, peer))
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.connections.add(id, peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        if let FromSwarm::ConnectionClosed(closed) = event {
            self.connections.remove(closed.connection_id, closed.peer_id);
        }
    }

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, event: THandlerOutEvent<Self>) {
        match event {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

pub struct Handler {
    wanted: mpsc::UnboundedReceiver<(StreamProtocol, Opened)>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = Upgrade;
    type OutboundProtocol = Upgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Opened;

    fn listen_protocol(&self) -> SubstreamProtocol<Upgrade> {
        SubstreamProtocol::new(Upgrade(protocols::NAMES.iter().map(|name| StreamProtocol::new(name)).collect()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        true
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<Upgrade, Opened, Infallible>> {
        match self.wanted.poll_recv(cx) {
            Poll::Ready(Some((name, opened))) => Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(Upgrade(vec![name]), opened).with_timeout(Duration::from_secs(60)),
            }),
            _ => Poll::Pending,
        }
    }

    fn on_behaviour_event(&mut self, event: Infallible) {
        match event {}
    }

    fn on_connection_event(&mut self, event: ConnectionEvent<Upgrade, Upgrade, (), Opened>) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(inbound) => {
                let (stream, name) = inbound.protocol;
                tokio::spawn(async move {
                    if let Err(error) = protocols::serve(name.as_ref(), stream).await {
                        eprintln!("{name}: {error}");
                    }
                });
            }
            ConnectionEvent::FullyNegotiatedOutbound(outbound) => {
                let _ = outbound.info.send(Ok(outbound.protocol.0));
            }
            ConnectionEvent::DialUpgradeError(failed) => {
                let why = match failed.error {
                    StreamUpgradeError::NegotiationFailed => "protocols not supported".to_owned(),
                    other => other.to_string(),
                };
                let _ = failed.info.send(Err(why));
            }
            _ => {}
        }
    }
}

/// Negotiates one of these protocols and adds nothing.
pub struct Upgrade(Vec<StreamProtocol>);

impl UpgradeInfo for Upgrade {
    type Info = StreamProtocol;
    type InfoIter = std::vec::IntoIter<StreamProtocol>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.0.clone().into_iter()
    }
}

impl InboundUpgrade<Stream> for Upgrade {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_inbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, name)))
    }
}

impl OutboundUpgrade<Stream> for Upgrade {
    type Output = (Stream, StreamProtocol);
    type Error = Infallible;
    type Future = Ready<Result<Self::Output, Infallible>>;

    fn upgrade_outbound(self, stream: Stream, name: StreamProtocol) -> Self::Future {
        ready(Ok((stream, name)))
    }
}
