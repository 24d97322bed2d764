/* A rhiza peer for any runtime, driven by the lines of the lab (../peers/README.md); the installed package, not src. */
import { createHash } from 'node:crypto'
import { createInterface } from 'node:readline'
import { createKit } from 'rhiza'
import { generateKey, decodePublicKey } from 'rhiza/peer'

const [listen = '/ip4/127.0.0.1/tcp/0', security = '/noise'] = process.argv.slice(2)

async function securityOf(name) {
  if (name === '/noise') return {}
  const [{ createTls }, { systemEnv }] = await Promise.all([import('rhiza/tls'), import('rhiza/env')])
  const privateKey = await generateKey('Ed25519')
  return { privateKey, security: [createTls({ privateKey, env: systemEnv() })] }
}

const kit = await createKit({ ...(await securityOf(security)), listen: [listen] })
const { node } = kit
node.handle('/echo/1.0.0', async (stream) => {
  for await (const chunk of stream) await stream.write(chunk)
  await stream.closeWrite()
})

async function whole(chunks) {
  const hash = createHash('sha256')
  let size = 0
  for await (const chunk of chunks) {
    hash.update(chunk)
    size += chunk.length
  }
  return { size, sha256: hash.digest('hex') }
}

const commands = {
  connect: async ({ addr }) => ({ peer: String((await node.dial(addr)).peer) }),
  identify: async ({ addr }) => {
    const { agent, protocols: ids, observedAddr } = await node.identify(addr)
    return { agent, protocols: ids, observedAddr: String(observedAddr) }
  },
  ping: async ({ addr, count }) => ({ rttMs: await Array.fromAsync(node.ping(addr, { count })) }),
  echo: async ({ addr, bytes }) => {
    const stream = await node.newStream(addr, '/echo/1.0.0')
    const send = async () => {
      await stream.write(Buffer.from(bytes, 'base64'))
      await stream.closeWrite()
    }
    const [chunks] = await Promise.all([Array.fromAsync(stream), send()])
    return { bytes: Buffer.concat(chunks).toString('base64') }
  },
  addBytes: async ({ base64 }) => {
    const { cid } = await kit.add([Buffer.from(base64, 'base64')])
    return { cid: String(cid) }
  },
  fetch: async ({ cid, addr }) => whole(kit.cat(cid, { peers: [addr] })),
  keys: async ({ type, publicKey, message, signature }) => {
    const [bytes, theirs] = [message, signature].map((text) => Buffer.from(text, 'base64'))
    const key = await generateKey(type)
    const signed = await key.sign(bytes)
    return {
      own: await key.publicKey.verify(bytes, signed),
      forged: await key.publicKey.verify(Buffer.from('another'), signed),
      theirs: await decodePublicKey(Buffer.from(publicKey, 'base64')).verify(bytes, theirs),
    }
  },
}

const print = (value) => process.stdout.write(`${JSON.stringify(value)}\n`)

async function run({ id, cmd, ...params }) {
  try {
    print({ ...(await commands[cmd](params)), id, ok: true })
  } catch (error) {
    print({ id, ok: false, error: `${error?.name} ${error?.code ?? ''}: ${error?.message}`, stack: error?.stack })
  }
}

await kit.start()
print({ event: 'listening', peerId: String(node.peerId), addrs: node.addrs().map(String) })
// The process must end by itself when its node has stopped.
createInterface({ input: process.stdin })
  .on('line', (line) => void run(JSON.parse(line)))
  .on('close', () => void kit.stop())
