import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createKit } from 'rhiza'
import { openRepo } from 'rhiza/repo'

const path = await mkdtemp(join(tmpdir(), 'rhiza-'))
const repo = await openRepo(path)
const kit = await createKit({ repo, privateKey: await repo.identity() })
const folder = await kit.addDirectory([
  { path: 'readme.txt', type: 'file', content: new TextEncoder().encode('read me\n') },
  { path: 'docs/more.txt', type: 'file', content: new TextEncoder().encode('more\n') },
])
for await (const { name, type, size } of kit.ls(folder.cid)) console.log(name, type, size)
for await (const bytes of kit.cat(`${folder.cid}/docs/more.txt`, { offset: 1 })) process.stdout.write(bytes)
await kit.stop()
await repo.close()
await rm(path, { recursive: true })
