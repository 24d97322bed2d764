//! A rust-libp2p peer driven by one JSON object per line: commands on stdin, answers on stdout, logs on stderr.
//! The contract is in ../README.md.
mod commands;
mod host;
mod kad;
mod protocols;
mod pubsub;
mod raw;
mod stack;

use std::{env, io::Write, process::exit, sync::Arc, time::Duration};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::{commands::Lab, host::Host, stack::Failure, stack::Stack};

fn flags() -> Result<(Stack, Vec<String>, usize), Failure> {
    let mut stack = Stack {
        security: "noise".to_owned(),
        key: "ed25519".to_owned(),
        rsa_key: None,
        tls_cert: None,
        tls_key: None,
        tls_ca: None,
        psk: None,
        signed_record: false,
        kad: None,
        kad_mode: "server".to_owned(),
        pubsub: pubsub::Options::default(),
    };
    let mut nodes = 1;
    let mut listen = Vec::new();
    let mut args = env::args().skip(1);
    while let Some(flag) = args.next() {
        let value = args.next().ok_or_else(|| format!("{flag} needs a value"))?;
        match flag.as_str() {
            "--listen" => listen.push(value),
            "--security" => stack.security = value,
            "--muxer" if value == "yamux" => {}
            "--key" => stack.key = value,
            "--rsa-key" => stack.rsa_key = Some(value),
            "--tls-cert" => stack.tls_cert = Some(value),
            "--tls-key" => stack.tls_key = Some(value),
            "--tls-ca" => stack.tls_ca = Some(value),
            "--signed-record" => stack.signed_record = value == "yes",
            "--kad" => stack.kad = Some(value),
            "--kad-mode" => stack.kad_mode = value,
            "--pubsub" => stack.pubsub.kind = value,
            "--pubsub-sign" => stack.pubsub.sign = value,
            "--pubsub-version" => stack.pubsub.version = value,
            "--pubsub-heartbeat-ms" => stack.pubsub.heartbeat_ms = value.parse()?,
            "--pubsub-idontwant-bytes" => stack.pubsub.idontwant_bytes = value.parse()?,
            "--pubsub-ids" => stack.pubsub.ids = value,
            "--nodes" => nodes = value.parse()?,
            "--psk" => stack.psk = Some(value),
            _ => return Err(format!("no such flag: {flag} {value}").into()),
        }
    }
    if listen.is_empty() {
        listen.push("/ip4/127.0.0.1/tcp/0".to_owned());
    }
    Ok((stack, listen, nodes))
}

fn print(answer: &Value) {
    let mut out = std::io::stdout().lock();
    // Without a reader there is nobody to tell.
    let _ = writeln!(out, "{answer}").and_then(|()| out.flush());
}

async fn answer(lab: &Lab, request: &Value) -> Value {
    let limit = Duration::from_millis(request["timeoutMs"].as_u64().unwrap_or(60_000));
    let mut answer = match tokio::time::timeout(limit, commands::run(lab, request)).await {
        Ok(Ok(mut answer)) => {
            answer["ok"] = true.into();
            answer
        }
        Ok(Err(error)) => json!({ "ok": false, "error": error.to_string() }),
        Err(_) => json!({ "ok": false, "error": "the command timed out" }),
    };
    answer["id"] = request["id"].clone();
    answer
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let (stack, listen, nodes) = flags()?;
    let mut labs = Vec::new();
    for node in 0..nodes {
        labs.push(Arc::new(Lab { host: Host::start(&stack, &listen, node).await?, stack: stack.clone() }));
    }
    let about = |lab: &Arc<Lab>| json!({ "peerId": lab.host.peer_id.to_string(), "addrs": lab.host.addrs });
    let mut listening = about(labs.first().ok_or("no node")?);
    listening["event"] = "listening".into();
    listening["nodes"] = labs.iter().map(about).collect();
    print(&listening);
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Some(line) = lines.next_line().await? {
        let request: Value = serde_json::from_str(&line)?;
        if request["cmd"] == "stop" {
            print(&json!({ "id": request["id"], "ok": true }));
            break;
        }
        let lab = labs.get(request["node"].as_u64().unwrap_or(0) as usize).ok_or("no such node")?.clone();
        tokio::spawn(async move { print(&answer(&lab, &request).await) });
    }
    // The thread that waits for stdin would keep a runtime from ending.
    exit(0)
}
