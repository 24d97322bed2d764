//! The protocols that every lab peer answers, and how their streams are read and written.
use std::io;

use futures::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use libp2p::Stream;

pub const CHUNK_BYTES: usize = 64 << 10;
pub const NAMES: [&str; 5] = ["/echo/1.0.0", "/sink/1.0.0", "/source/1.0.0", "/reset/1.0.0", "/perf/1.0.0"];

/// A stream that is dropped before its close is reset.
pub async fn serve(name: &str, mut stream: Stream) -> io::Result<()> {
    match name {
        "/echo/1.0.0" => {
            let mut chunk = vec![0; CHUNK_BYTES];
            loop {
                let n = stream.read(&mut chunk).await?;
                if n == 0 {
                    break;
                }
                stream.write_all(&chunk[..n]).await?;
                stream.flush().await?;
            }
        }
        "/sink/1.0.0" => {
            let count = drain(&mut stream).await?;
            stream.write_all(&count.to_be_bytes()).await?;
        }
        "/source/1.0.0" => {
            let count = read_u64(&mut stream).await?;
            write_zeros(&mut stream, count, CHUNK_BYTES).await?;
        }
        "/reset/1.0.0" => {
            stream.read_exact(&mut [0]).await?;
            return Ok(());
        }
        _ => {
            let count = read_u64(&mut stream).await?;
            drain(&mut stream).await?;
            write_zeros(&mut stream, count, CHUNK_BYTES).await?;
        }
    }
    stream.close().await
}

pub async fn drain(stream: &mut (impl AsyncRead + Unpin)) -> io::Result<u64> {
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut total = 0;
    loop {
        match stream.read(&mut chunk).await? {
            0 => return Ok(total),
            n => total += n as u64,
        }
    }
}

async fn read_u64(stream: &mut Stream) -> io::Result<u64> {
    let mut bytes = [0; 8];
    stream.read_exact(&mut bytes).await?;
    Ok(u64::from_be_bytes(bytes))
}

pub async fn write_zeros(stream: &mut (impl AsyncWrite + Unpin), count: u64, size: usize) -> io::Result<()> {
    let zeros = vec![0; size];
    let mut left = count;
    while left > 0 {
        let n = left.min(size as u64);
        stream.write_all(&zeros[..n as usize]).await?;
        left -= n;
    }
    Ok(())
}
