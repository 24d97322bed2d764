import { mkdtemp, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, onTestFinished } from 'vitest'
import { generateKey } from '../../src/peer/keys.ts'
import { Keystore } from '../../src/store/keystore.ts'

async function fresh(): Promise<{ keys: Keystore; dir: string }> {
  const base = await mkdtemp(join(tmpdir(), 'rhiza-keys-'))
  onTestFinished(() => rm(base, { recursive: true, force: true }))
  const dir = join(base, 'keys')
  return { keys: new Keystore(dir), dir }
}

describe('a keystore', () => {
  it('keeps keys of each type by name, for the owner alone', async () => {
    const { keys, dir } = await fresh()
    expect(await keys.list()).toEqual([])
    for (const type of ['Ed25519', 'Secp256k1', 'ECDSA', 'RSA'] as const) {
      const key = await generateKey(type)
      await keys.put(`my-${type}`, key)
      const again = await new Keystore(dir).get(`my-${type}`)
      expect(again?.encoded).toEqual(key.encoded)
      expect((await stat(join(dir, `my-${type}.key`))).mode & 0o777).toBe(0o600)
    }
    expect((await stat(dir)).mode & 0o777).toBe(0o700)
    expect(await keys.list()).toEqual(['my-ECDSA', 'my-Ed25519', 'my-RSA', 'my-Secp256k1'])
  })

  it('never replaces a key, not even one that is named in other letters', async () => {
    const { keys } = await fresh()
    const key = generateKey()
    await keys.put('site', key)
    for (const name of ['site', 'Site']) {
      await expect(keys.put(name, generateKey())).rejects.toMatchObject({ name: 'StorageError', code: 'exists' })
    }
    expect((await keys.get('site'))?.encoded).toEqual(key.encoded)
  })

  it('deletes', async () => {
    const { keys } = await fresh()
    await keys.put('site', generateKey())
    expect(await keys.delete('site')).toBe(true)
    expect(await keys.delete('site')).toBe(false)
    expect(await keys.get('site')).toBeUndefined()
  })

  it.each(['', 'self', '../identity', 'a/b', '.hidden', 'a\0b', 'x'.repeat(65), 'ümlaut', 'a b'])(
    'refuses the name %j',
    async (name) => {
      const { keys } = await fresh()
      expect(() => keys.get(name)).toThrow(TypeError)
      await expect(keys.put(name, generateKey())).rejects.toBeInstanceOf(TypeError)
    },
  )

  it('says of a damaged file which it is, and leaves it alone', async () => {
    const { keys, dir } = await fresh()
    await keys.put('site', generateKey())
    await writeFile(join(dir, 'site.key'), 'nonsense')
    await expect(keys.get('site')).rejects.toMatchObject({ code: 'corrupt' })
    await expect(keys.get('site')).rejects.toThrow('key file holds no private key')
  })
})
