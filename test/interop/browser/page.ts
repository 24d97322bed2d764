/* A page that is a rhiza peer; browser.test.ts drives it through `peer`. */
import { createKit, type Kit } from '../../../src/index.ts'
import { BufferedStream } from '../../../src/stream.ts'

export interface Greeting {
  agent: string
  rttMs: number[]
  transport: string
  security: string
  remoteAddr: string
}

const hex = (bytes: Uint8Array): string => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
const sha256 = async (bytes: Uint8Array<ArrayBuffer>): Promise<string> =>
  hex(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes)))

let kit: Kit | undefined

async function started(): Promise<Kit> {
  if (kit !== undefined) return kit
  kit = await createKit()
  kit.node.handle('/page/1.0.0', async (stream) => {
    const all = await new BufferedStream(stream).readAll(16 << 20)
    await stream.write(all)
    await stream.closeWrite()
  })
  await kit.start()
  return kit
}

const peer = {
  async greet(addr: string): Promise<Greeting> {
    const { node } = await started()
    const { agent = '' } = await node.identify(addr)
    const rttMs = await Array.fromAsync(node.ping(addr, { count: 5 }))
    const connection = node.connections()[0]
    if (connection === undefined) throw new Error('no connection')
    const { transport, security, remoteAddr } = connection
    return { agent, rttMs, transport, security, remoteAddr: String(remoteAddr) }
  },
  async id(): Promise<string> {
    return String((await started()).node.peerId)
  },
  /** Size and SHA-256 of what the peer sends back, and whether it is what went there. */
  async echo(addr: string, size: number): Promise<boolean> {
    const { node } = await started()
    const bytes = new Uint8Array(size).map((_, i) => (i * 31) >> 3)
    const stream = await node.newStream(addr, '/echo/1.0.0')
    const reply = new BufferedStream(stream).readAll(size + 1)
    for (let at = 0; at < size; at += 65_536) await stream.write(bytes.slice(at, at + 65_536))
    await stream.closeWrite()
    const back = await reply
    return back.length === size && back.every((byte, i) => byte === bytes[i])
  },
  async fetch(addr: string, cid: string): Promise<string> {
    const chunks = await Array.fromAsync((await started()).cat(cid, { peers: [addr] }))
    return sha256(new Uint8Array(await new Blob(chunks as Uint8Array<ArrayBuffer>[]).arrayBuffer()))
  },
  async add(size: number): Promise<{ cid: string; sha256: string }> {
    const bytes = new Uint8Array(size)
    for (let at = 0; at < size; at += 65_536) crypto.getRandomValues(bytes.subarray(at, at + 65_536))
    const { cid } = await (await started()).add([bytes.slice()])
    return { cid: String(cid), sha256: await sha256(bytes) }
  },
  async refusal(addr: string): Promise<string> {
    const { node } = await started()
    return node.dial(addr).then(
      () => 'dialled',
      (error: Error & { code?: string }) => `${error.name} ${error.code}`,
    )
  },
  async stop(): Promise<void> {
    await kit?.stop()
    kit = undefined
  },
}

export type PagePeer = typeof peer
Object.assign(globalThis, { peer })
