package sftpsrv

import (
	"golang.org/x/crypto/ssh"
	"golang.org/x/sys/cpu"
)

// Algorithms are what a Server offers, best first. Of key exchange, cipher and
// MAC the client's order decides.
type Algorithms struct {
	KeyExchanges []string
	Ciphers      []string
	MACs         []string
	PublicKeys   []string // signatures of users
	RSAHostKeys  []string // signatures of an RSA host key
}

// DefaultAlgorithms are those that are thought safe: nothing with SHA-1, CBC,
// DSA or the small groups. ChaCha20-Poly1305 is the first choice of OpenSSH's
// client, and less than half as fast as AES-GCM where the processor knows AES;
// so it is offered only where it does not.
func DefaultAlgorithms() Algorithms {
	a := Algorithms{
		KeyExchanges: []string{
			ssh.KeyExchangeMLKEM768X25519,
			ssh.KeyExchangeCurve25519, // and curve25519-sha256@libssh.org
			ssh.KeyExchangeECDHP256,
			ssh.KeyExchangeECDHP384,
			ssh.KeyExchangeECDHP521,
			ssh.KeyExchangeDH14SHA256,
			ssh.KeyExchangeDH16SHA512,
		},
		Ciphers: []string{
			ssh.CipherAES128GCM,
			ssh.CipherAES256GCM,
			ssh.CipherAES128CTR,
			ssh.CipherAES192CTR,
			ssh.CipherAES256CTR,
		},
		MACs: []string{
			ssh.HMACSHA256ETM,
			ssh.HMACSHA512ETM,
			ssh.HMACSHA256,
			ssh.HMACSHA512,
		},
		PublicKeys: []string{
			ssh.KeyAlgoED25519,
			ssh.KeyAlgoSKED25519,
			ssh.KeyAlgoECDSA256,
			ssh.KeyAlgoECDSA384,
			ssh.KeyAlgoECDSA521,
			ssh.KeyAlgoSKECDSA256,
			ssh.KeyAlgoRSASHA512,
			ssh.KeyAlgoRSASHA256,
		},
		RSAHostKeys: []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256},
	}
	if !hasAES() {
		a.Ciphers = append([]string{ssh.CipherChaCha20Poly1305}, a.Ciphers...)
	}
	return a
}

// hasAES reports whether the processor has instructions for AES-GCM.
func hasAES() bool {
	return cpu.X86.HasAES && cpu.X86.HasPCLMULQDQ ||
		cpu.ARM64.HasAES && cpu.ARM64.HasPMULL ||
		cpu.S390X.HasAESGCM
}
