//! The commands of the lab's lines.
use std::{
    fs,
    sync::atomic::{AtomicI64, Ordering},
    time::Instant,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use futures::{AsyncReadExt, AsyncWriteExt, future::try_join_all};
use libp2p::{Multiaddr, PeerId, Stream};
use serde_json::{Value, json};

use crate::{
    host::Host,
    kad,
    protocols::{CHUNK_BYTES, write_zeros},
    pubsub,
    stack::{Failure, Stack},
};

pub struct Lab {
    pub host: Host,
    pub stack: Stack,
}

pub async fn run(lab: &Lab, request: &Value) -> Result<Value, Failure> {
    match text(request, "cmd").unwrap_or_default() {
        "connect" => Ok(json!({ "peer": target(&lab.host, request).await?.to_string() })),
        "disconnect" => {
            lab.host.disconnect(target(&lab.host, request).await?).await?;
            Ok(json!({}))
        }
        "peers" => {
            let peers = lab.host.connections.counts().into_iter();
            let list = peers.map(|(peer, connections)| json!({ "peer": peer.to_string(), "connections": connections }));
            Ok(json!({ "peers": list.collect::<Vec<_>>() }))
        }
        "ping" => ping(&lab.host, request).await,
        "identify" => identify(&lab.host, request).await,
        "echo" => {
            let stream = open(&lab.host, request, "/echo/1.0.0").await?;
            let back = exchange(stream, &bytes(request)?).await?;
            Ok(json!({ "bytes": STANDARD.encode(back) }))
        }
        "send" => {
            let mut stream = open(&lab.host, request, "/echo/1.0.0").await?;
            stream.write_all(&bytes(request)?).await?;
            stream.close().await?;
            Ok(json!({}))
        }
        "perf" => perf(&lab.host, request).await,
        "streams" => streams(&lab.host, request).await,
        "dials" => dials(lab, request).await,
        "stats" => {
            let status = fs::read_to_string("/proc/self/status")?;
            let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
            let kib: u64 = rss.trim().trim_end_matches(" kB").parse()?;
            Ok(json!({ "rssBytes": kib * 1024, "pid": std::process::id() }))
        }
        other => {
            if let Some(question) = kad::question(request) {
                let wanted = text(request, "peer").filter(|_| other == "findPeer").map(str::to_owned);
                return lab.host.ask(question?, wanted).await;
            }
            match pubsub::question(request) {
                Some(question) => lab.host.gossip(question?).await,
                None => Err(format!("no such command: {other}").into()),
            }
        }
    }
}

fn text<'a>(request: &'a Value, name: &str) -> Option<&'a str> {
    request[name].as_str()
}

fn number(request: &Value, name: &str, otherwise: u64) -> u64 {
    request[name].as_u64().unwrap_or(otherwise)
}

fn bytes(request: &Value) -> Result<Vec<u8>, Failure> {
    Ok(STANDARD.decode(text(request, "bytes").unwrap_or_default())?)
}

/// The peer of a command, connected to first when an address was given.
async fn target(host: &Host, request: &Value) -> Result<PeerId, Failure> {
    match (text(request, "addr"), text(request, "peer")) {
        (Some(addr), _) => host.connect(addr).await,
        (None, Some(peer)) => Ok(peer.parse()?),
        _ => Err("addr or peer is needed".into()),
    }
}

async fn open(host: &Host, request: &Value, protocol: &str) -> Result<Stream, Failure> {
    let peer = target(host, request).await?;
    host.open(peer, text(request, "protocol").unwrap_or(protocol)).await
}

async fn exchange(stream: Stream, out: &[u8]) -> Result<Vec<u8>, Failure> {
    let (mut read, mut write) = stream.split();
    let mut back = Vec::new();
    let (sent, got) = futures::join!(
        async {
            write.write_all(out).await?;
            write.close().await
        },
        read.read_to_end(&mut back)
    );
    got?;
    sent?;
    Ok(back)
}

async fn ping_once(stream: &mut Stream) -> Result<f64, Failure> {
    let sent: [u8; 32] = std::array::from_fn(|_| rand::random());
    let start = Instant::now();
    stream.write_all(&sent).await?;
    stream.flush().await?;
    let mut back = [0; 32];
    stream.read_exact(&mut back).await?;
    if back != sent {
        return Err("the ping reply differs".into());
    }
    Ok(start.elapsed().as_secs_f64() * 1000.0)
}

async fn ping(host: &Host, request: &Value) -> Result<Value, Failure> {
    let peer = target(host, request).await?;
    let mut stream = host.open(peer, "/ipfs/ping/1.0.0").await?;
    let mut rtts = Vec::new();
    for _ in 0..number(request, "count", 1) {
        rtts.push(ping_once(&mut stream).await?);
    }
    stream.close().await?;
    Ok(json!({ "rttMs": rtts }))
}

fn varint(bytes: &mut &[u8]) -> Result<u64, Failure> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or("a message is cut short")?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < &0x80 {
            return Ok(value);
        }
    }
    Err("a varint is too long".into())
}

fn prefixed<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Failure> {
    let size = varint(bytes)? as usize;
    let (body, rest) = bytes.split_at_checked(size).ok_or("a message is cut short")?;
    *bytes = rest;
    Ok(body)
}

/// Asks anew on a stream of its own, as the library keeps the answer's bytes to itself.
async fn identify(host: &Host, request: &Value) -> Result<Value, Failure> {
    let peer = target(host, request).await?;
    let mut stream = host.open(peer, "/ipfs/id/1.0.0").await?;
    let mut raw = Vec::new();
    stream.read_to_end(&mut raw).await?;
    let mut answer = json!({ "agent": "", "protocolVersion": "", "protocols": [], "listenAddrs": [],
        "observedAddr": "", "publicKey": "", "signedPeerRecord": "", "raw": STANDARD.encode(&raw) });
    let mut rest = raw.as_slice();
    while !rest.is_empty() {
        let mut message = prefixed(&mut rest)?;
        while !message.is_empty() {
            let tag = varint(&mut message)?;
            if tag & 7 != 2 {
                return Err(format!("identify field with tag {tag}").into());
            }
            let body = prefixed(&mut message)?;
            let string = || String::from_utf8_lossy(body).into_owned();
            let addr = || Multiaddr::try_from(body.to_vec()).map(|a| a.to_string());
            match tag >> 3 {
                1 => answer["publicKey"] = STANDARD.encode(body).into(),
                2 => answer["listenAddrs"].as_array_mut().ok_or("no list")?.push(addr()?.into()),
                3 => answer["protocols"].as_array_mut().ok_or("no list")?.push(string().into()),
                4 => answer["observedAddr"] = addr()?.into(),
                5 => answer["protocolVersion"] = string().into(),
                6 => answer["agent"] = string().into(),
                8 => answer["signedPeerRecord"] = STANDARD.encode(body).into(),
                _ => {}
            }
        }
    }
    Ok(answer)
}

/// The client of /perf/1.0.0. The upload ends with the first byte of the reply, or with its end.
async fn perf(host: &Host, request: &Value) -> Result<Value, Failure> {
    let peer = target(host, request).await?;
    let (upload, download) = (number(request, "upload", 0), number(request, "download", 0));
    let size = (number(request, "writeSize", CHUNK_BYTES as u64) as usize).clamp(1, CHUNK_BYTES);
    let mut stream = host.open(peer, "/perf/1.0.0").await?;
    let start = Instant::now();
    stream.write_all(&download.to_be_bytes()).await?;
    write_zeros(&mut stream, upload, size).await?;
    stream.close().await?;
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut got = 0;
    let mut first = None;
    loop {
        let n = stream.read(&mut chunk).await?;
        first.get_or_insert_with(Instant::now);
        if n == 0 {
            break;
        }
        got += n as u64;
    }
    if got != download {
        return Err(format!("asked for {download} bytes, got {got}").into());
    }
    let first = first.unwrap_or(start);
    Ok(json!({ "uploadSeconds": (first - start).as_secs_f64(), "downloadSeconds": first.elapsed().as_secs_f64() }))
}

/// A count of jobs that workers share.
struct Jobs(AtomicI64);

impl Jobs {
    fn take(&self) -> bool {
        self.0.fetch_sub(1, Ordering::Relaxed) > 0
    }
}

async fn streams(host: &Host, request: &Value) -> Result<Value, Failure> {
    let peer = target(host, request).await?;
    let name = text(request, "protocol").unwrap_or("/echo/1.0.0");
    let out: Vec<u8> = (0..number(request, "payload", 32)).map(|_| rand::random()).collect();
    let jobs = Jobs(AtomicI64::new(number(request, "count", 1) as i64));
    let start = Instant::now();
    try_join_all((0..number(request, "parallel", 1)).map(|_| async {
        while jobs.take() {
            if exchange(host.open(peer, name).await?, &out).await? != out {
                return Err("the echo differs".into());
            }
        }
        Ok::<_, Failure>(())
    }))
    .await?;
    Ok(json!({ "seconds": start.elapsed().as_secs_f64() }))
}

/// Connects, pings once and closes, `count` times, from `parallel` hosts with an identity each.
async fn dials(lab: &Lab, request: &Value) -> Result<Value, Failure> {
    let addr = text(request, "addr").ok_or("addr is needed")?;
    let jobs = Jobs(AtomicI64::new(number(request, "count", 1) as i64));
    let hosts = try_join_all((0..number(request, "parallel", 1)).map(|_| Host::start(&lab.stack, &[], 0))).await?;
    let start = Instant::now();
    let times = try_join_all(hosts.iter().map(|host| async {
        let mut times = Vec::new();
        while jobs.take() {
            let start = Instant::now();
            let peer = host.connect(addr).await?;
            ping_once(&mut host.open(peer, "/ipfs/ping/1.0.0").await?).await?;
            times.push(start.elapsed().as_secs_f64() * 1000.0);
            host.disconnect(peer).await?;
        }
        Ok::<_, Failure>(times)
    }))
    .await?;
    Ok(json!({ "seconds": start.elapsed().as_secs_f64(), "dialMs": times.concat() }))
}
