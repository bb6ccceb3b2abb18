package main

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
)

// The cost of a password hash: what OWASP's Password Storage Cheat Sheet asks
// for at least. More of it would let clients without a password keep a small
// server busy.
const (
	argonTime    = 2
	argonMemory  = 19 << 10 // KiB
	argonThreads = 1
	argonKeyLen  = 32
)

// hashPassword returns the argon2id hash of a password as a PHC string.
func hashPassword(password string) string {
	salt := make([]byte, 16)
	rand.Read(salt)
	key := argon2.IDKey([]byte(password), salt, argonTime, argonMemory, argonThreads, argonKeyLen)
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, argonMemory, argonTime, argonThreads,
		b64.EncodeToString(salt), b64.EncodeToString(key))
}

// verifyPassword reports whether password has that hash, which checkPasswordHash
// was content with.
func verifyPassword(hash string, password []byte) bool {
	if isBcrypt(hash) {
		return bcrypt.CompareHashAndPassword([]byte(hash), password) == nil
	}
	h, err := parseArgon(hash)
	if err != nil {
		return false
	}
	key := argon2.IDKey(password, h.salt, h.time, h.memory, h.threads, uint32(len(h.key)))
	return subtle.ConstantTimeCompare(key, h.key) == 1
}

// checkPasswordHash reports whether a text is a hash of a kind that is known:
// argon2id, or bcrypt.
func checkPasswordHash(hash string) error {
	if isBcrypt(hash) {
		cost, err := bcrypt.Cost([]byte(hash))
		if err == nil && cost > 16 {
			err = errors.New("bcrypt: the cost is too high")
		}
		return err
	}
	_, err := parseArgon(hash)
	return err
}

func isBcrypt(hash string) bool { return strings.HasPrefix(hash, "$2") }

// An argonHash is an argon2id hash taken apart.
type argonHash struct {
	memory, time uint32
	threads      uint8
	salt, key    []byte
}

var errNoHash = errors.New("not a password hash; sftpbridge hash-password makes one")

func parseArgon(text string) (argonHash, error) {
	var h argonHash
	parts := strings.Split(text, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return h, errNoHash
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &h.memory, &h.time, &h.threads); n != 3 || err != nil {
		return h, errNoHash
	}
	if params := fmt.Sprintf("m=%d,t=%d,p=%d", h.memory, h.time, h.threads); params != parts[3] {
		return h, errNoHash
	}
	var err1, err2 error
	h.salt, err1 = base64.RawStdEncoding.DecodeString(parts[4])
	h.key, err2 = base64.RawStdEncoding.DecodeString(parts[5])
	switch {
	case err1 != nil || err2 != nil || len(h.salt) < 8 || len(h.key) < 16 || len(h.key) > 128:
		return h, errNoHash
	case h.memory > 1<<20 || h.time < 1 || h.time > 64 || h.threads < 1:
		return h, errors.New("the cost of the hash is out of bounds")
	}
	return h, nil
}
