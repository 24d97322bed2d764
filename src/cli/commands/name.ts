/* `rhiza name`: IPNS names, which move. */
import { UnavailableError } from '../../errors.ts'
import { createNames, formatName, type Names } from '../../ipns/ipns.ts'
import { parseCid } from '../../ipld/cid.ts'
import type { PrivateKey } from '../../peer/keys.ts'
import { memoryRecords } from '../../store/records.ts'
import type { Repo } from '../../store/repo.ts'
import { parseDuration, type Command } from '../args.ts'
import { lookingUp, lookupOptions, recordsOf, type Lookup } from '../network.ts'

async function namesOf({ dht, kit, repo }: Lookup): Promise<Names> {
  const { env } = kit.node
  return createNames({ routing: dht, env, records: (await recordsOf(repo)) ?? memoryRecords({ env }) })
}

/** The key of that name; `self` is the repo's own. Rejects with UnavailableError `not-found`. */
export async function keyNamed(repo: Repo, name: string): Promise<PrivateKey> {
  if (name === 'self') return repo.identity()
  const key = await repo.keys.get(name)
  if (key !== undefined) return key
  throw new UnavailableError('not-found', `there is no key ${JSON.stringify(name)}: rhiza key list shows all`)
}

/** `CID` is short for `/ipfs/CID`. */
function pathOf(text: string): string {
  if (text.startsWith('/')) return text
  const [cid = ''] = text.split('/')
  parseCid(cid)
  return `/ipfs/${text}`
}

const publish: Command = {
  name: 'name publish',
  summary: 'point a name at a path',
  usage: 'PATH [--key NAME]',
  more: [
    'PATH is a CID, /ipfs/CID/path or /ipns/NAME. The name is that of the key: see rhiza key list.',
    'rhiza serve on the same repo publishes it again every 4 hours.',
  ].join('\n'),
  options: {
    ...lookupOptions,
    key: { type: 'string', short: 'k', value: 'NAME', help: "whose name (default self, the repo's own key)" },
    lifetime: { type: 'string', value: 'TIME', help: 'how long the record is valid (default 48h)' },
    ttl: { type: 'string', value: 'TIME', help: 'until resolvers look again (default 5m)' },
  },
  arity: [1, 1],
  async run(context) {
    const { args, options, out } = context
    const path = pathOf(args[0] ?? '')
    const { lifetime, ttl } = options
    const times = {
      ...(typeof lifetime === 'string' && { lifetimeMs: parseDuration(lifetime) }),
      ...(typeof ttl === 'string' && { ttlMs: parseDuration(ttl) }),
    }
    await lookingUp(context, async (parts) => {
      const key = await keyNamed(parts.repo, typeof options['key'] === 'string' ? options['key'] : 'self')
      const names = await namesOf(parts)
      const { name, record, peers } = await names.publish(key, path, { signal: parts.signal, ...times })
      const text = formatName(name)
      await out.result(
        { name: text, value: record.value, sequence: Number(record.sequence), validity: record.validity, peers },
        `published /ipns/${text}: ${record.value}`,
      )
    })
  },
}

const resolve: Command = {
  name: 'name resolve',
  summary: 'print the path that a name points at',
  usage: 'NAME',
  options: { ...lookupOptions, 'one-step': { type: 'boolean', help: 'do not follow a name that points at a name' } },
  arity: [1, 1],
  async run(context) {
    const { args, options, out } = context
    await lookingUp(context, async (parts) => {
      const names = await namesOf(parts)
      const { path, record } = await names.resolve(args[0] ?? '', {
        signal: parts.signal,
        recursive: options['one-step'] !== true,
      })
      await out.result({ path, sequence: Number(record.sequence), validity: record.validity }, path)
    })
  },
}

export const name: readonly Command[] = [publish, resolve]
