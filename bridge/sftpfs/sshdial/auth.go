package sshdial

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// A login is one attempt to log in to a host.
type login struct {
	d   *dialer
	h   hop
	ctx context.Context // of the connection under way
	w   *watchdog

	mu    sync.Mutex
	tried []string          // for the message if all fails; guarded by mu
	used  map[string]string // answers given, by question; guarded by mu
}

// methods returns what to try, in ssh's order, and what to call when the login
// is over.
func (l *login) methods() ([]ssh.AuthMethod, func()) {
	done := func() {}
	conn, err := net.Dial("unix", l.h.agent)
	if l.h.agent != "" && err == nil {
		done = func() { conn.Close() }
	} else {
		conn = nil
	}
	methods := []ssh.AuthMethod{ssh.PublicKeysCallback(func() ([]ssh.Signer, error) { return l.signers(conn), nil })}
	const tries = 3
	if l.d.opt.Prompt != nil || l.hasSecret() {
		methods = append(methods,
			ssh.RetryableAuthMethod(ssh.KeyboardInteractive(l.answer), tries),
			ssh.RetryableAuthMethod(ssh.PasswordCallback(l.password), tries))
	}
	return methods, done
}

// signers returns the keys to try: key files that the agent has too are used
// through it, so that nobody is asked for their passphrases.
func (l *login) signers(conn net.Conn) []ssh.Signer {
	var fromAgent []ssh.Signer
	if conn != nil {
		fromAgent, _ = agent.NewClient(conn).Signers()
	}
	var signers []ssh.Signer
	have := make(map[string]bool)
	add := func(s ssh.Signer, what string) {
		if key := string(s.PublicKey().Marshal()); !have[key] {
			have[key] = true
			signers = append(signers, s)
			l.try(fmt.Sprintf("the key %s (%s)", what, ssh.FingerprintSHA256(s.PublicKey())))
		}
	}
	var files []ssh.Signer
	names := make(map[ssh.Signer]string)
	for _, f := range l.h.identities {
		for _, s := range l.keyFile(f) {
			files = append(files, s)
			names[s] = f
		}
	}
	for _, a := range fromAgent {
		name := "of the agent"
		listed := false
		for _, s := range files {
			if string(s.PublicKey().Marshal()) == string(a.PublicKey().Marshal()) {
				name, listed = names[s], true
			}
		}
		if listed || !l.h.identitiesOnly {
			add(a, name)
		}
	}
	for _, s := range files {
		add(s, names[s])
	}
	return signers
}

// keyFile returns the key of a file, and before it that of its certificate.
func (l *login) keyFile(file string) []ssh.Signer {
	pem, err := os.ReadFile(file)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			l.try(fmt.Sprintf("the key %s (cannot be read)", file))
		}
		return nil
	}
	s, err := l.parseKey(file, pem)
	if err != nil {
		l.try(fmt.Sprintf("the key %s (%v)", file, err))
		return nil
	}
	signers := []ssh.Signer{s}
	if cert := readCert(file + "-cert.pub"); cert != nil {
		if cs, err := ssh.NewCertSigner(cert, s); err == nil {
			signers = []ssh.Signer{cs, s}
		}
	}
	return signers
}

// parseKey returns the key. One with a passphrase is decrypted when the server
// has said that it would take it.
func (l *login) parseKey(file string, pem []byte) (ssh.Signer, error) {
	s, err := ssh.ParsePrivateKey(pem)
	var locked *ssh.PassphraseMissingError
	if !errors.As(err, &locked) {
		return s, err
	}
	pub := locked.PublicKey
	if pub == nil {
		line, err := os.ReadFile(file + ".pub")
		if err != nil {
			return nil, errors.New("has a passphrase and no .pub file")
		}
		if pub, _, _, _, err = ssh.ParseAuthorizedKey(line); err != nil {
			return nil, err
		}
	}
	return &lockedKey{l: l, file: file, pem: pem, pub: pub}, nil
}

func readCert(file string) *ssh.Certificate {
	line, err := os.ReadFile(file)
	if err != nil {
		return nil
	}
	pub, _, _, _, err := ssh.ParseAuthorizedKey(line)
	if err != nil {
		return nil
	}
	cert, _ := pub.(*ssh.Certificate)
	return cert
}

// A lockedKey is a key with a passphrase, which is asked for at the first use.
type lockedKey struct {
	l    *login
	file string
	pem  []byte
	pub  ssh.PublicKey
	open ssh.Signer
}

func (k *lockedKey) PublicKey() ssh.PublicKey { return k.pub }

func (k *lockedKey) Sign(r io.Reader, data []byte) (*ssh.Signature, error) {
	return k.SignWithAlgorithm(r, data, "")
}

// Algorithms leaves out the SHA-1 signature of RSA keys.
func (k *lockedKey) Algorithms() []string {
	if k.pub.Type() == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA256, ssh.KeyAlgoRSASHA512}
	}
	return []string{k.pub.Type()}
}

func (k *lockedKey) SignWithAlgorithm(r io.Reader, data []byte, algorithm string) (*ssh.Signature, error) {
	if err := k.unlock(); err != nil {
		return nil, err
	}
	if as, ok := k.open.(ssh.AlgorithmSigner); ok && algorithm != "" {
		return as.SignWithAlgorithm(rand.Reader, data, algorithm)
	}
	return k.open.Sign(rand.Reader, data)
}

// unlock decrypts the key, unless an earlier connection has.
func (k *lockedKey) unlock() error {
	if k.open != nil {
		return nil
	}
	d := k.l.d
	id := string(k.pub.Marshal())
	d.mu.Lock()
	k.open = d.unlocked[id]
	d.mu.Unlock()
	const tries = 3
	for i := 0; k.open == nil && i < tries; i++ {
		p, err := k.l.prompt(fmt.Sprintf("Enter passphrase for key '%s': ", k.file), false)
		if err != nil {
			return fmt.Errorf("no passphrase for %s: %w", k.file, err)
		}
		if s, err := ssh.ParsePrivateKeyWithPassphrase(k.pem, []byte(p)); err == nil {
			k.open = s
		}
	}
	if k.open == nil {
		return fmt.Errorf("wrong passphrase for %s", k.file)
	}
	d.mu.Lock()
	d.unlocked[id] = k.open
	d.mu.Unlock()
	return nil
}

// password asks for the password.
func (l *login) password() (string, error) {
	l.try("a password")
	return l.ask(fmt.Sprintf("%s@%s's password: ", l.h.user, l.h.host), false)
}

// answer answers the questions of keyboard-interactive.
func (l *login) answer(name, instruction string, questions []string, echos []bool) ([]string, error) {
	if len(questions) > 0 {
		l.try("keyboard-interactive")
	}
	answers := make([]string, len(questions))
	for i, q := range questions {
		var err error
		if answers[i], err = l.ask(fmt.Sprintf("(%s@%s) %s", l.h.user, l.h.host, plain(q)), echos[i]); err != nil {
			return nil, err
		}
	}
	return answers, nil
}

// plain takes control characters out of what a server wants to be shown.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return -1
		}
		return r
	}, s)
}

var errNoPrompt = errors.New("there is nobody to ask")

// prompt asks the user. The time that takes is not counted.
func (l *login) prompt(question string, echo bool) (string, error) {
	if l.d.opt.Prompt == nil {
		return "", errNoPrompt
	}
	resume := l.w.pause()
	defer resume()
	l.d.asking.Lock()
	defer l.d.asking.Unlock()
	return l.d.opt.Prompt(l.ctx, question, echo)
}

// ask returns the answer that was good the last time, once, or asks the user.
func (l *login) ask(question string, echo bool) (string, error) {
	l.mu.Lock()
	_, again := l.used[question]
	l.mu.Unlock()
	l.d.mu.Lock()
	answer, ok := l.d.secrets[question]
	if again {
		delete(l.d.secrets, question)
		ok = false
	}
	l.d.mu.Unlock()
	if !ok {
		var err error
		if answer, err = l.prompt(question, echo); err != nil {
			return "", err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.used == nil {
		l.used = make(map[string]string)
	}
	l.used[question] = answer
	return answer, nil
}

// keep keeps the answers of a login that was successful.
func (l *login) keep() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	for q, a := range l.used {
		l.d.secrets[q] = a
	}
}

func (l *login) hasSecret() bool {
	l.d.mu.Lock()
	defer l.d.mu.Unlock()
	return len(l.d.secrets) > 0
}

// try notes what is tried.
func (l *login) try(what string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.tried); n == 0 || l.tried[n-1] != what {
		l.tried = append(l.tried, what)
	}
}

// explain turns the error of a handshake into one line: of a login that was
// refused, it says what was tried.
func (l *login) explain(err error) error {
	var host *HostKeyError
	if errors.As(err, &host) {
		return host
	}
	if !strings.Contains(err.Error(), "unable to authenticate") {
		return fmt.Errorf("cannot connect to %s: %w", l.h, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	tried := "nothing: there is no key, no agent and nobody to ask for a password"
	if len(l.tried) > 0 {
		tried = strings.Join(l.tried, ", ")
	}
	return fmt.Errorf("%s does not let %s in; tried %s", l.h, l.h.user, tried)
}
