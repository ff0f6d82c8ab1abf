package store

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

const sealSize = 4

var errSeal = errors.New("checksum does not match")

// seal returns crc ‖ body, the crc over key and body, so that a value that was
// moved to another key is found out too.
func seal(key, body []byte) []byte {
	out := make([]byte, sealSize, sealSize+len(body))
	return closeSeal(key, append(out, body...))
}

// closeSeal fills in the crc of a value that was built with room for it.
func closeSeal(key, v []byte) []byte {
	binary.BigEndian.PutUint32(v, sum32(key, v[sealSize:]))
	return v
}

// unseal returns the body of a sealed value. It stays valid as v does.
func unseal(key, v []byte) ([]byte, error) {
	if len(v) < sealSize || binary.BigEndian.Uint32(v) != sum32(key, v[sealSize:]) {
		return nil, errSeal
	}
	return v[sealSize:], nil
}

func sum32(key, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
}
