/* The certificate of listeners on /tls/ws: read from two files, and read again at SIGHUP, as after a renewal. */
import { readFile } from 'node:fs/promises'
import { asError } from '../errors.ts'
import { storing } from '../store/durable.ts'
import { tcp } from '../transport/tcp.ts'
import type { Transport } from '../transport/transport.ts'
import { websocket, type WebSocketCertificate } from '../transport/websocket/websocket.ts'
import { UsageError, type Context, type OptionSpecs } from './args.ts'

export const certificateOptions = {
  'tls-cert': { type: 'string', value: 'FILE', help: 'certificate chain (PEM) for /tls/ws; read again at SIGHUP' },
  'tls-key': { type: 'string', value: 'FILE', help: 'its private key (PEM)' },
} as const satisfies OptionSpecs

export interface Certified {
  transports: readonly Transport[]
  /** Stops listening to SIGHUP. */
  stop(): void
}

/** Undefined where no certificate is named. Rejects with UsageError, or StorageError for a file that can't be read. */
export async function certificateOf(
  { options, out }: Context,
  listen: readonly string[],
): Promise<Certified | undefined> {
  const { 'tls-cert': cert, 'tls-key': key } = options
  if (typeof cert !== 'string' || typeof key !== 'string') {
    if (cert !== key) throw new UsageError('--tls-cert and --tls-key go together: give both')
    const secured = listen.find((addr) => /\/(tls|wss)(\/|$)/.test(addr))
    if (secured === undefined) return undefined
    const next = 'give --tls-cert and --tls-key, or listen on /ws behind a proxy that has one'
    throw new UsageError(`--listen ${secured} wants a certificate: ${next}`)
  }
  const read = async (): Promise<WebSocketCertificate> => ({
    cert: await storing(cert, () => readFile(cert, 'utf8')),
    key: await storing(key, () => readFile(key, 'utf8')),
  })
  const transport = websocket({ tls: await read() })
  const tell = (reloaded: boolean, text: string): void => {
    if (out.json) void out.result({ event: 'certificate', reloaded, text }, text)
    else out.note(text)
  }
  const reload = async (): Promise<void> => {
    try {
      transport.setCertificate(await read())
      tell(true, `read ${cert} again`)
    } catch (error) {
      tell(false, `kept the certificate that we had: ${asError(error).message}`)
    }
  }
  const onHangUp = (): void => void reload()
  process.on('SIGHUP', onHangUp)
  return { transports: [tcp(), transport], stop: () => void process.off('SIGHUP', onHangUp) }
}
