/*
 * dag-pb in the data model (ipld specs/codecs/dag-pb §Logical Format): { Links: [{ Hash, Name?, Tsize? }], Data? }, in this
 * order whatever that of the block was, as go-codec-dagpb iterates. Links are sorted by name when written, as go does.
 */
import { asBadBlock } from './cbor.ts'
import { decodeNode, encodeNode, sortLinks, type PBLink } from './dag-pb.ts'
import { isLink, isMap, type IpldMap, type IpldNode } from './model.ts'

function bad(why: string): TypeError {
  return new TypeError(`not the form of dag-pb: ${why}`)
}

function checkFields(map: IpldMap, known: readonly string[], where: string): void {
  const other = Object.keys(map).find((key) => !known.includes(key))
  if (other !== undefined) throw bad(`${where} has a field ${JSON.stringify(other.slice(0, 80))}`)
}

/** Throws ProtocolError `bad-block`, `oversized` above `maxBytes` (default 2 MiB). */
export function decodeDagPb(bytes: Uint8Array, maxBytes?: number): IpldMap {
  try {
    const { links, data } = decodeNode(bytes, maxBytes)
    const Links = links.map(({ cid, name, tsize }) => {
      const link: Record<string, IpldNode> = { Hash: cid }
      if (name !== undefined) link['Name'] = name
      if (tsize !== undefined) link['Tsize'] = tsize
      return link
    })
    return data === undefined ? { Links } : { Links, Data: data }
  } catch (error) {
    throw asBadBlock('dag-pb', error)
  }
}

function linkOf(node: IpldNode): PBLink {
  if (!isMap(node)) throw bad('a link must be a map')
  checkFields(node, ['Hash', 'Name', 'Tsize'], 'a link')
  const { Hash, Name, Tsize } = node
  if (Hash === undefined || !isLink(Hash)) throw bad('the Hash of a link must be a CID')
  if (Name !== undefined && typeof Name !== 'string') throw bad('the Name of a link must be a string')
  if (Tsize !== undefined && (!Number.isSafeInteger(Tsize) || (Tsize as number) < 0))
    throw bad('the Tsize of a link must be an int from 0 to 2^53-1')
  return { cid: Hash, name: Name, tsize: Tsize as number | undefined }
}

/** Throws TypeError for what is not of this form. */
export function encodeDagPb(node: IpldNode): Uint8Array {
  if (!isMap(node)) throw bad('want a map')
  checkFields(node, ['Links', 'Data'], 'the node')
  const { Links, Data } = node
  if (!Array.isArray(Links)) throw bad('Links must be a list')
  if (Data !== undefined && !(Data instanceof Uint8Array)) throw bad('Data must be bytes')
  const links = sortLinks((Links as readonly IpldNode[]).map((link) => linkOf(link)))
  return encodeNode(Data === undefined ? { links } : { links, data: Data })
}
