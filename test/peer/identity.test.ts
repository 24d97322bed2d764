import { spawn } from 'node:child_process'
import { chmod, chown, mkdir, mkdtemp, readdir, readFile, rm, stat, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { fromHex, fromUtf8 } from '../../src/bytes.ts'
import { nativeCrypto } from '../../src/crypto/native.ts'
import { nobleCrypto } from '../../src/crypto/noble.ts'
import { StorageError } from '../../src/errors.ts'
import { decodeIdentity, encodeIdentity, loadOrCreateIdentity } from '../../src/peer/identity.ts'
import { generateKey } from '../../src/peer/keys.ts'
import { specCases } from '../vectors.ts'

const vectors = specCases('peer-ids/keys.json') as { type: string; private: string; public: string }[]
const identityModule = resolve(import.meta.dirname, '../../src/peer/identity.ts')

/** The user id that owns nothing. */
const nobody = 65_534

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rhiza-identity-'))
})
afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

async function refused(path: string): Promise<StorageError> {
  const error: unknown = await loadOrCreateIdentity(path).catch((reason: unknown) => reason)
  if (!(error instanceof StorageError)) throw new Error(`no StorageError but ${String(error)}`)
  expect(error.path).toBe(path)
  expect(error.message).toContain(path)
  return error
}

/** Another process, started and waiting: `take` lets it take the identity at `path` and gives its peer id. */
async function otherProcess(path: string): Promise<{ take: () => Promise<string> }> {
  const script = `
    const { loadOrCreateIdentity } = await import(${JSON.stringify(identityModule)})
    process.stdout.write('ready ')
    for await (const _ of process.stdin);
    process.stdout.write(String((await loadOrCreateIdentity(${JSON.stringify(path)})).publicKey.peerId))`
  const child = spawn(process.execPath, ['--input-type=module', '-e', script])
  let out = ''
  let errors = ''
  child.stderr.on('data', (chunk: Buffer) => (errors += chunk.toString()))
  const ended = new Promise<string>((done, fail) => {
    child.on('error', fail)
    child.on('close', (code) => {
      if (code === 0) done(out.replace('ready ', ''))
      else fail(new Error(`exit ${code}: ${errors}`))
    })
  })
  const ready = new Promise<void>((done) => {
    child.stdout.on('data', (chunk: Buffer) => {
      out += chunk.toString()
      if (out.startsWith('ready ')) done()
    })
  })
  await Promise.race([ready, ended])
  return {
    take: async () => {
      child.stdin.end()
      return ended
    },
  }
}

describe('loadOrCreateIdentity', () => {
  it('makes a key once and loads it from then on', async () => {
    const path = join(folder, 'a', 'b', 'identity')
    const made = await loadOrCreateIdentity(path)
    const loaded = await loadOrCreateIdentity(path)
    expect(loaded.publicKey.peerId.toString()).toBe(made.publicKey.peerId.toString())
    const message = fromUtf8('hello')
    expect(await made.publicKey.verify(message, await loaded.sign(message))).toBe(true)
    expect(new Uint8Array(await readFile(path))).toEqual(encodeIdentity(made))
    expect(await readdir(join(folder, 'a', 'b'))).toEqual(['identity'])
  })

  it('lets nobody else read the file', async () => {
    const path = join(folder, 'identity')
    const before = process.umask(0)
    try {
      await loadOrCreateIdentity(path)
    } finally {
      process.umask(before)
    }
    expect((await stat(path)).mode & 0o777).toBe(0o600)
  })

  it.each(vectors)('loads the file with a key of type $type that another implementation wrote', async (vector) => {
    const path = join(folder, 'identity')
    await writeFile(path, fromHex(vector.private))
    for (const crypto of [nativeCrypto, nobleCrypto]) {
      const key = await loadOrCreateIdentity(path, crypto)
      expect(key.type).toBe(vector.type)
      expect(key.publicKey.encoded).toEqual(fromHex(vector.public))
    }
    expect(new Uint8Array(await readFile(path))).toEqual(fromHex(vector.private))
  })

  it.each([
    ['empty', new Uint8Array(0)],
    ['cut short', generateKey().encoded.subarray(0, 60)],
    ['text', fromUtf8('-----BEGIN PRIVATE KEY-----')],
    ['of another key', generateKey().encoded.with(40, 0).with(41, 0).with(42, 0).with(43, 0)],
    ['too long', new Uint8Array(8193)],
  ])('leaves a file that is %s untouched and names it', async (_what, bytes) => {
    const path = join(folder, 'identity')
    await writeFile(path, bytes)
    const error = await refused(path)
    expect(error.code).toBe('corrupt')
    expect(error.message).toMatch(/restore it from a backup, or move it away/)
    expect(new Uint8Array(await readFile(path))).toEqual(new Uint8Array(bytes))
    expect(await readdir(folder)).toEqual(['identity'])
  })

  it('tells a path under a file from a missing one', async () => {
    await writeFile(join(folder, 'file'), 'x')
    expect((await refused(join(folder, 'file', 'identity'))).code).toBe('io')
    expect(await readFile(join(folder, 'file'), 'utf8')).toBe('x')
  })

  it('tells a folder from a file', async () => {
    await mkdir(join(folder, 'identity'))
    expect((await refused(join(folder, 'identity'))).code).toBe('io')
  })

  it('does not write through a link to nothing', async () => {
    await symlink(join(folder, 'nothing'), join(folder, 'identity'))
    expect((await refused(join(folder, 'identity'))).code).toBe('io')
    expect(await readdir(folder)).toEqual(['identity'])
  })

  it.skipIf(process.platform === 'win32')('says so when the folder or the file may not be used', async () => {
    const closed = join(folder, 'closed')
    const path = join(closed, 'identity')
    const { seteuid } = process
    const root = process.getuid?.() === 0
    // root may use everything: nobody has to try
    if (root) await chown(folder, nobody, nobody)
    if (root) seteuid?.(nobody)
    try {
      await loadOrCreateIdentity(path)
      await chmod(path, 0)
      expect((await refused(path)).code).toBe('not-permitted')
      await chmod(path, 0o600)
      await chmod(closed, 0o500)
      expect((await refused(join(closed, 'other'))).code).toBe('not-permitted')
      expect(await readdir(closed)).toEqual(['identity'])
      await chmod(closed, 0o700)
    } finally {
      if (root) seteuid?.(0)
    }
  })

  it('gives all of many calls at once the same identity', async () => {
    const path = join(folder, 'identity')
    const keys = await Promise.all(Array.from({ length: 20 }, async () => loadOrCreateIdentity(path)))
    expect(new Set(keys.map((key) => key.publicKey.peerId.toString())).size).toBe(1)
    expect(await readdir(folder)).toEqual(['identity'])
  })

  it('gives two processes at once the same identity', async () => {
    const path = join(folder, 'identity')
    const others = await Promise.all([otherProcess(path), otherProcess(path)])
    const ids = await Promise.all(others.map(async (other) => other.take()))
    expect(ids).toEqual([ids[0], ids[0]])
    expect((await loadOrCreateIdentity(path)).publicKey.peerId.toString()).toBe(ids[0])
    expect(await readdir(folder)).toEqual(['identity'])
  }, 30_000)
})

describe('encodeIdentity', () => {
  it('gives back what decodeIdentity reads', () => {
    const key = generateKey()
    const bytes = encodeIdentity(key)
    expect(decodeIdentity(bytes).publicKey.peerId.equals(key.publicKey.peerId)).toBe(true)
    bytes.fill(0)
    expect(key.encoded).not.toEqual(bytes)
  })
})
