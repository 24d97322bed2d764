import { readFileSync } from 'node:fs'
import { getCACertificates, setDefaultCACertificates } from 'node:tls'
import { generateKeyPair } from '@libp2p/crypto/keys'
import { identify, identifyPush } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'

export const stackFlags = {
  listen: { type: 'string', multiple: true, default: ['/ip4/127.0.0.1/tcp/0'] },
  security: { type: 'string', default: 'noise' },
  muxer: { type: 'string', default: 'yamux' },
  key: { type: 'string', default: 'ed25519' },
  'tls-cert': { type: 'string' },
  'tls-key': { type: 'string' },
  'tls-ca': { type: 'string' },
  psk: { type: 'string' },
}

const many = 1_000_000
// What a run does not use is not loaded: benchmarks measure its start and its memory.
const encrypters = {
  noise: () => noise(),
  tls: async () => (await import('@libp2p/tls')).tls(),
}
// createLibp2p makes no peer id of an ECDSA key.
const keyTypes = { ed25519: 'Ed25519', rsa: 'RSA', secp256k1: 'secp256k1' }

function known(table, name, what) {
  if (Object.hasOwn(table, name)) return table[name]
  throw new Error(`no such ${what}: ${name}`)
}

async function transports(flags) {
  if (!flags.listen.some((addr) => /\/wss?$/.test(addr))) return [tcp()]
  const { webSockets } = await import('@libp2p/websockets')
  // It dials /tls/ws with the platform's WebSocket, which has no setting for whom it trusts.
  if (flags['tls-ca'] !== undefined)
    setDefaultCACertificates([...getCACertificates('default'), readFileSync(flags['tls-ca'], 'utf8')])
  if (flags['tls-cert'] === undefined) return [tcp(), webSockets()]
  const [cert, key] = [flags['tls-cert'], flags['tls-key']].map((file) => readFileSync(file, 'utf8'))
  return [tcp(), webSockets({ https: { cert, key } })]
}

async function network(flags) {
  if (flags.psk === undefined) return {}
  const { preSharedKey } = await import('@libp2p/pnet')
  return { connectionProtector: preSharedKey({ psk: readFileSync(flags.psk) }) }
}

/** The options of a node; every call but the first, which listens, gives an identity of its own. */
export async function stackOptions(flags, listen) {
  if (flags.muxer !== 'yamux') throw new Error(`no such muxer: ${flags.muxer}`)
  return {
    privateKey: await generateKeyPair(known(keyTypes, flags.key, 'key type')),
    addresses: { listen },
    transports: await transports(flags),
    connectionEncrypters: await Promise.all(flags.security.split(',').map((s) => known(encrypters, s, 'security')())),
    streamMuxers: [yamux({ maxInboundStreams: many, maxOutboundStreams: many, maxEarlyStreams: many })],
    ...(await network(flags)),
    connectionManager: {
      maxConnections: many,
      maxIncomingPendingConnections: many,
      inboundConnectionThreshold: Infinity,
      reconnectRetries: 0,
    },
    connectionMonitor: { enabled: false },
    connectionGater: { denyDialMultiaddr: () => false },
    nodeInfo: { userAgent: 'rhiza-lab-js' },
    // The command asks beside the node's own asking.
    services: { identify: identify({ maxOutboundStreams: many }), identifyPush: identifyPush(), ping: ping() },
  }
}
