/* `rhiza key`: the keys of this repo, which are names to publish under. */
import { open, readFile } from 'node:fs/promises'
import { UnavailableError } from '../../errors.ts'
import { formatName } from '../../ipns/record.ts'
import { generateKey, importPrivateKey, type KeyType, type PrivateKey } from '../../peer/keys.ts'
import { checkKeyName } from '../../store/keystore.ts'
import { openRepo, type Repo } from '../../store/repo.ts'
import { UsageError, type Command, type Context } from '../args.ts'
import { keyNamed } from './name.ts'

async function withRepo(context: Context, work: (repo: Repo) => Promise<void>): Promise<void> {
  const repo = await openRepo(context.repoPath)
  try {
    await work(repo)
  } finally {
    await repo.close()
  }
}

async function print({ out }: Context, name: string, { type, publicKey }: PrivateKey): Promise<void> {
  const { peerId } = publicKey
  const text = formatName(peerId)
  await out.result({ name, type, id: text, peerId: String(peerId) }, `${text}  ${name}`)
}

const types: Readonly<Record<string, KeyType>> = {
  ed25519: 'Ed25519',
  rsa: 'RSA',
  secp256k1: 'Secp256k1',
  ecdsa: 'ECDSA',
}

const gen: Command = {
  name: 'key gen',
  summary: 'make a key',
  usage: 'NAME [--type TYPE]',
  options: {
    type: { type: 'string', short: 't', value: 'TYPE', help: `${Object.keys(types).join(', ')} (default ed25519)` },
    size: { type: 'string', short: 's', value: 'BITS', help: 'of an RSA key (default 2048)' },
  },
  arity: [1, 1],
  async run(context) {
    const { args, options } = context
    const [name = ''] = args
    checkKeyName(name)
    const { type: given = 'ed25519', size = '2048' } = options
    const type = Object.hasOwn(types, String(given)) ? types[String(given)] : undefined
    if (type === undefined)
      throw new UsageError(`--type ${JSON.stringify(given)}: want one of ${Object.keys(types).join(', ')}`)
    if (options['size'] !== undefined && type !== 'RSA') throw new UsageError('--size is for RSA keys alone')
    if (!/^\d{4,5}$/.test(String(size))) throw new UsageError(`--size ${JSON.stringify(size)}: want 2048, 3072 or 4096`)
    const key = await generateKey(type, undefined, Number(size))
    await withRepo(context, async (repo) => {
      await repo.keys.put(name, key)
      await print(context, name, key)
    })
  },
}

const list: Command = {
  name: 'key list',
  summary: 'list the keys: id, name',
  usage: '',
  options: {},
  arity: [0, 0],
  async run(context) {
    await withRepo(context, async (repo) => {
      for (const name of ['self', ...(await repo.keys.list())]) await print(context, name, await keyNamed(repo, name))
    })
  },
}

const rm: Command = {
  name: 'key rm',
  summary: 'remove keys: what was published under them can not be changed any more',
  usage: 'NAME...',
  options: {},
  arity: [1, 1_000],
  async run(context) {
    for (const name of context.args) checkKeyName(name)
    await withRepo(context, async (repo) => {
      for (const name of context.args) {
        if (!(await repo.keys.delete(name)))
          throw new UnavailableError('not-found', `there is no key ${JSON.stringify(name)}: rhiza key list shows all`)
        await context.out.result({ removed: name }, `removed ${name}`)
      }
    })
  },
}

/** More than the message of any key has. */
const maxKeyBytes = 16_384

const importKey: Command = {
  name: 'key import',
  summary: 'take a key from a file, as `ipfs key export` writes it; - reads standard input',
  usage: 'NAME FILE|-',
  options: {},
  arity: [2, 2],
  async run(context) {
    const [name = '', file = ''] = context.args
    checkKeyName(name)
    let bytes: Uint8Array
    if (file === '-') {
      const chunks: Uint8Array[] = []
      for await (const chunk of process.stdin) chunks.push(chunk as Uint8Array)
      bytes = Buffer.concat(chunks)
    } else bytes = await readFile(file)
    if (bytes.length > maxKeyBytes) throw new UsageError(`${file}: ${bytes.length} bytes are no key`)
    const key = await importPrivateKey(Uint8Array.from(bytes))
    await withRepo(context, async (repo) => {
      await repo.keys.put(name, key)
      await print(context, name, key)
    })
  },
}

const exportKey: Command = {
  name: 'key export',
  summary: 'write a key to a file, for `rhiza key import` and `ipfs key import`',
  usage: 'NAME [-o FILE]',
  more: 'The file holds the secret key, unencrypted (libp2p-protobuf-cleartext). One that is there is not replaced.',
  options: { output: { type: 'string', short: 'o', value: 'FILE', help: 'where to (default NAME.key)' } },
  arity: [1, 1],
  async run(context) {
    const { args, options, out } = context
    const [name = ''] = args
    const path = typeof options['output'] === 'string' ? options['output'] : `${name}.key`
    await withRepo(context, async (repo) => {
      const key = await keyNamed(repo, name)
      if (path === '-') {
        await out.write(key.encoded)
        return
      }
      const file = await open(path, 'wx', 0o600).catch((error: unknown) => {
        if (error instanceof Error && 'code' in error && error.code === 'EEXIST')
          throw new UsageError(`${path} is there already: name another file with -o`)
        throw error
      })
      try {
        await file.writeFile(key.encoded)
        await file.sync()
      } finally {
        await file.close()
      }
      await out.result({ name, path }, `wrote ${path}`)
    })
  },
}

export const key: readonly Command[] = [gen, list, rm, importKey, exportKey]
