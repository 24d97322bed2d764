//! What a host is made of: transports, security, identity.
use std::{error::Error, fs, io, pin::Pin, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{
    AsyncRead, AsyncWrite,
    future::{BoxFuture, Either},
};
use libp2p::{
    PeerId, Transport,
    core::{
        UpgradeInfo,
        muxing::StreamMuxerBox,
        transport::Boxed,
        upgrade::{InboundConnectionUpgrade, OutboundConnectionUpgrade, Version},
    },
    dns,
    identity::Keypair,
    noise,
    pnet::{PnetConfig, PreSharedKey},
    tcp, tls, websocket, yamux,
};

use crate::pubsub;

pub type Failure = Box<dyn Error + Send + Sync>;

#[derive(Clone)]
pub struct Stack {
    /// `noise`, `tls` or both, in order of preference.
    pub security: String,
    pub key: String,
    /// PKCS#8 as DER: rust-libp2p makes no RSA keys of its own.
    pub rsa_key: Option<String>,
    pub tls_cert: Option<String>,
    pub tls_key: Option<String>,
    pub tls_ca: Option<String>,
    pub psk: Option<String>,
    pub signed_record: bool,
    /// The Kademlia network: `lan`, `amino`, or a prefix of its own.
    pub kad: Option<String>,
    /// `server` or `client`.
    pub kad_mode: String,
    pub pubsub: pubsub::Options,
}

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}
type Socket = Pin<Box<dyn Duplex>>;

impl Stack {
    pub fn keypair(&self) -> Result<Keypair, Failure> {
        Ok(match self.key.as_str() {
            "ed25519" => Keypair::generate_ed25519(),
            "secp256k1" => Keypair::generate_secp256k1(),
            "ecdsa" => Keypair::generate_ecdsa(),
            "rsa" => Keypair::rsa_from_pkcs8(&mut fs::read(self.rsa_key.as_ref().ok_or("--rsa-key is needed")?)?)?,
            other => return Err(format!("no such key type: {other}").into()),
        })
    }

    pub fn transport(&self, keypair: &Keypair) -> Result<Boxed<(PeerId, StreamMuxerBox)>, Failure> {
        let tcp = || {
            let sockets = tcp::tokio::Transport::new(tcp::Config::default().nodelay(true));
            dns::tokio::Transport::system(sockets)
        };
        let mut ws = websocket::Config::new(tcp()?);
        let mut certificates = websocket::tls::Config::builder();
        if let Some(file) = &self.tls_ca {
            for der in pem(file, "CERTIFICATE")? {
                certificates.add_trust(&websocket::tls::Certificate::new(der))?;
            }
        }
        if let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) {
            let key = pem(key, "PRIVATE KEY")?.pop().ok_or("no PKCS#8 key")?;
            let chain = pem(cert, "CERTIFICATE")?.into_iter().map(websocket::tls::Certificate::new);
            certificates.server(websocket::tls::PrivateKey::new(key), chain)?;
        }
        ws.set_tls_config(certificates.finish());

        let psk = match &self.psk {
            Some(file) => Some(fs::read_to_string(file)?.parse::<PreSharedKey>()?),
            None => None,
        };
        let security = Security {
            names: self.security.split(',').map(name_of).collect::<Result<_, _>>()?,
            noise: noise::Config::new(keypair)?,
            tls: tls::Config::new(keypair)?,
        };
        Ok(ws
            .or_transport(tcp()?)
            .and_then(move |either, _| async move {
                let socket: Socket = match either {
                    Either::Left(socket) => Box::pin(socket),
                    Either::Right(socket) => Box::pin(socket),
                };
                match psk {
                    None => Ok(socket),
                    Some(key) => match PnetConfig::new(key).handshake(socket).await {
                        Ok(secret) => Ok(Box::pin(secret) as Socket),
                        Err(error) => Err(io::Error::other(error)),
                    },
                }
            })
            .upgrade(Version::V1Lazy)
            .authenticate(security)
            .multiplex(yamux::Config::default())
            .timeout(Duration::from_secs(10))
            .boxed())
    }
}

fn name_of(security: &str) -> Result<&'static str, Failure> {
    match security {
        "noise" => Ok("/noise"),
        "tls" => Ok("/tls/1.0.0"),
        other => Err(format!("no such security: {other}").into()),
    }
}

/// The DER of every block of a PEM file with this label.
fn pem(file: &str, label: &str) -> Result<Vec<Vec<u8>>, Failure> {
    let text = fs::read_to_string(file)?;
    let (begin, end) = (format!("-----BEGIN {label}-----"), format!("-----END {label}-----"));
    let blocks = text.split(&begin).skip(1).map(|rest| rest.split(&end).next().unwrap_or_default());
    Ok(blocks.map(|block| STANDARD.decode(block.split_whitespace().collect::<String>())).collect::<Result<_, _>>()?)
}

/// Noise and TLS side by side, in a chosen order.
#[derive(Clone)]
struct Security {
    names: Vec<&'static str>,
    noise: noise::Config,
    tls: tls::Config,
}

impl UpgradeInfo for Security {
    type Info = &'static str;
    type InfoIter = std::vec::IntoIter<&'static str>;

    fn protocol_info(&self) -> Self::InfoIter {
        self.names.clone().into_iter()
    }
}

impl<C: Duplex + 'static> InboundConnectionUpgrade<C> for Security {
    type Output = (PeerId, Socket);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_inbound(self, socket: C, name: &'static str) -> Self::Future {
        Box::pin(async move {
            Ok(if name == "/noise" {
                let (peer, io) = self.noise.upgrade_inbound(socket, name).await.map_err(io::Error::other)?;
                (peer, Box::pin(io) as Socket)
            } else {
                let (peer, io) = self.tls.upgrade_inbound(socket, name).await.map_err(io::Error::other)?;
                (peer, Box::pin(io) as Socket)
            })
        })
    }
}

impl<C: Duplex + 'static> OutboundConnectionUpgrade<C> for Security {
    type Output = (PeerId, Socket);
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Output>>;

    fn upgrade_outbound(self, socket: C, name: &'static str) -> Self::Future {
        Box::pin(async move {
            Ok(if name == "/noise" {
                let (peer, io) = self.noise.upgrade_outbound(socket, name).await.map_err(io::Error::other)?;
                (peer, Box::pin(io) as Socket)
            } else {
                let (peer, io) = self.tls.upgrade_outbound(socket, name).await.map_err(io::Error::other)?;
                (peer, Box::pin(io) as Socket)
            })
        })
    }
}
