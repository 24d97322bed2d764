import { randomBytes } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'

const chunkBytes = 64 * 1024
const zeros = new Uint8Array(chunkBytes)
const unlimited = { maxInboundStreams: 1_000_000, maxOutboundStreams: 1_000_000 }

/** Calls onBytes for every chunk; resolves at the peer's FIN, whenever it came; rejects when the stream breaks. */
export function readAll(stream, onBytes) {
  return new Promise((resolve, reject) => {
    stream.addEventListener('message', (event) => onBytes(event.data))
    stream.addEventListener('end', () => resolve())
    stream.addEventListener('close', (event) => {
      if (event.error != null) reject(event.error)
      else resolve()
    })
    if (stream.readableEnded) resolve()
  })
}

async function collect(stream) {
  const chunks = []
  await readAll(stream, (data) => chunks.push(data.subarray()))
  return Buffer.concat(chunks)
}

async function send(stream, bytes) {
  if (!stream.send(bytes)) await stream.onDrain()
}

async function sendZeros(stream, count, size = chunkBytes) {
  for (let left = count; left > 0; left -= size) await send(stream, zeros.subarray(0, Math.min(left, size)))
}

function u64(count) {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(count))
  return bytes
}

/** Registers the protocols that every lab peer answers. */
export async function serve(node) {
  const handle = (protocol, handler) =>
    node.handle(
      protocol,
      async (stream) => {
        try {
          await handler(stream)
        } catch (error) {
          stream.abort(error)
        }
      },
      unlimited,
    )

  await handle('/echo/1.0.0', async (stream) => {
    await readAll(stream, (data) => {
      if (stream.send(data)) return
      stream.pause()
      stream.onDrain().then(
        () => stream.resume(),
        () => {},
      )
    })
    await stream.close()
  })
  await handle('/sink/1.0.0', async (stream) => {
    let count = 0
    await readAll(stream, (data) => (count += data.byteLength))
    await send(stream, u64(count))
    await stream.close()
  })
  await handle('/source/1.0.0', async (stream) => {
    await sendZeros(stream, Number(await firstU64(stream)))
    await stream.close()
  })
  await handle('/reset/1.0.0', async (stream) => {
    stream.addEventListener('message', () => stream.abort(new Error('asked to reset')))
  })
  await handle('/perf/1.0.0', async (stream) => {
    const head = []
    let size = 0
    await readAll(stream, (data) => {
      if (size < 8) {
        head.push(data.subarray(0, 8))
        size += data.byteLength
      }
    })
    if (size < 8) throw new Error('perf request of less than 8 bytes')
    await sendZeros(stream, Number(Buffer.concat(head).readBigUInt64BE()))
    await stream.close()
  })
}

function firstU64(stream) {
  return new Promise((resolve, reject) => {
    let head = Buffer.alloc(0)
    stream.addEventListener('message', (event) => {
      if (head.length >= 8) return
      head = Buffer.concat([head, event.data.subarray()])
      if (head.length >= 8) resolve(head.readBigUInt64BE())
    })
    stream.addEventListener('close', () => reject(new Error('closed before the count came')))
    stream.addEventListener('end', () => head.length < 8 && reject(new Error('ended before the count came')))
  })
}

/** Runs count jobs, parallel at a time; resolves to the seconds it took. */
async function each(count = 1, parallel = 1, job) {
  let left = count
  const worker = async (index) => {
    while (left-- > 0) await job(index)
  }
  const start = performance.now()
  await Promise.all(Array.from({ length: parallel }, (_, index) => worker(index)))
  return (performance.now() - start) / 1000
}

async function pingOnce(connection, signal) {
  const stream = await connection.newStream('/ipfs/ping/1.0.0', { signal, ...unlimited })
  try {
    return await pingStream(stream)
  } finally {
    stream.close().catch(() => {})
  }
}

function pingStream(stream) {
  const bytes = randomBytes(32)
  const start = performance.now()
  return new Promise((resolve, reject) => {
    let back = Buffer.alloc(0)
    const onMessage = (event) => {
      back = Buffer.concat([back, event.data.subarray()])
      if (back.length < bytes.length) return
      done()
      if (back.equals(bytes)) resolve(performance.now() - start)
      else reject(new Error('the ping reply differs'))
    }
    const onClose = () => {
      done()
      reject(new Error('the stream closed before the ping reply'))
    }
    const done = () => {
      stream.removeEventListener('message', onMessage)
      stream.removeEventListener('close', onClose)
    }
    stream.addEventListener('message', onMessage)
    stream.addEventListener('close', onClose)
    stream.send(bytes)
  })
}

export function streamCommands(node, spare) {
  const captured = []

  /** The connection a command means: dialled by address, or the first one to a peer. */
  const target = async ({ addr, peer, signal }) => {
    if (addr !== undefined) return node.dial(multiaddr(addr), { signal })
    if (peer === undefined) throw new Error('addr or peer is needed')
    const [connection] = node.getConnections(peerIdFromString(peer))
    if (connection === undefined) throw new Error(`not connected to ${peer}`)
    return connection
  }
  const open = async (params, protocol = params.protocol ?? '/echo/1.0.0') =>
    (await target(params)).newStream(protocol, { signal: params.signal, ...unlimited })

  return {
    connect: async (params) => ({ peer: String((await target(params)).remotePeer) }),
    disconnect: async (params) => {
      await node.hangUp((await target(params)).remotePeer)
    },
    peers: async () => ({
      peers: node.getPeers().map((peer) => {
        const connections = node.getConnections(peer)
        const streams = connections.reduce((sum, connection) => sum + connection.streams.length, 0)
        return { peer: String(peer), connections: connections.length, streams }
      }),
    }),
    ping: async (params) => {
      const stream = await open(params, '/ipfs/ping/1.0.0')
      const rttMs = []
      try {
        for (let i = 0; i < (params.count ?? 1); i++) rttMs.push(await pingStream(stream))
      } finally {
        stream.close().catch(() => {})
      }
      return { rttMs }
    },
    identify: async (params) => {
      const result = await node.services.identify.identify(await target(params), { signal: params.signal })
      return {
        agent: result.agentVersion,
        protocolVersion: result.protocolVersion,
        protocols: result.protocols,
        listenAddrs: result.listenAddrs.map(String),
        observedAddr: result.observedAddr === undefined ? '' : String(result.observedAddr),
      }
    },
    known: async ({ peer }) => {
      const { addresses, protocols } = await node.peerStore.get(peerIdFromString(peer))
      const addrs = addresses.map(({ multiaddr }) => String(multiaddr))
      const certified = addresses.filter((a) => a.isCertified).map(({ multiaddr }) => String(multiaddr))
      return { addrs, certified, protocols }
    },
    echo: async (params) => {
      const stream = await open(params)
      const back = collect(stream)
      back.catch(() => {})
      const bytes = Buffer.from(params.bytes ?? '', 'base64')
      for (let at = 0; at < bytes.length; at += chunkBytes) await send(stream, bytes.subarray(at, at + chunkBytes))
      await stream.close()
      return { bytes: (await back).toString('base64') }
    },
    send: async (params) => {
      const stream = await open(params)
      await send(stream, Buffer.from(params.bytes ?? '', 'base64'))
      await stream.close()
    },
    perf: async (params) => {
      const stream = await open(params, '/perf/1.0.0')
      let got = 0
      let first
      const done = readAll(stream, (data) => {
        first ??= performance.now()
        got += data.byteLength
      })
      done.catch(() => {})
      const start = performance.now()
      await send(stream, u64(params.download ?? 0))
      await sendZeros(stream, params.upload ?? 0, Math.min(params.writeSize ?? chunkBytes, chunkBytes))
      await stream.close()
      await done
      const end = performance.now()
      first ??= end
      if (got !== (params.download ?? 0)) throw new Error(`asked for ${params.download} bytes, got ${got}`)
      return { uploadSeconds: (first - start) / 1000, downloadSeconds: (end - first) / 1000 }
    },
    streams: async (params) => {
      const connection = await target(params)
      const out = randomBytes(params.payload ?? 32)
      const seconds = await each(params.count, params.parallel, async () => {
        const stream = await connection.newStream(params.protocol ?? '/echo/1.0.0', unlimited)
        const back = collect(stream)
        back.catch(() => {})
        stream.send(out)
        await stream.close()
        if (!(await back).equals(out)) throw new Error('the echo differs')
      })
      return { seconds }
    },
    dials: async ({ addr, count, parallel = 1, signal }) => {
      const nodes = await Promise.all(Array.from({ length: parallel }, spare))
      const dialMs = []
      try {
        const seconds = await each(count, parallel, async (index) => {
          const start = performance.now()
          const connection = await nodes[index].dial(multiaddr(addr), { signal })
          await pingOnce(connection, signal)
          dialMs.push(performance.now() - start)
          await connection.close()
        })
        return { seconds, dialMs }
      } finally {
        await Promise.all(nodes.map((each) => each.stop()))
      }
    },
    capture: async ({ protocols }) => {
      for (const protocol of protocols) {
        await node.unhandle(protocol)
        await node.handle(
          protocol,
          (stream, connection) => {
            const entry = { protocol, peer: String(connection.remotePeer), chunks: [], ended: false }
            captured.push(entry)
            const end = () => {
              entry.ended = true
              stream.close().catch(() => {})
            }
            readAll(stream, (data) => entry.chunks.push(data.subarray())).then(end, end)
          },
          unlimited,
        )
      }
    },
    captured: async () => ({
      streams: captured.map(({ protocol, peer, chunks, ended }) => ({
        protocol,
        peer,
        bytes: Buffer.concat(chunks).toString('base64'),
        ended,
      })),
    }),
    stats: async () => ({
      rssBytes: Number(/VmRSS:\s+(\d+)/.exec(readFileSync('/proc/self/status', 'utf8'))?.[1] ?? 0) * 1024,
      pid: process.pid,
    }),
  }
}
