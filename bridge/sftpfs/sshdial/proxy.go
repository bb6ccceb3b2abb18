package sshdial

import (
	"io"
	"net"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// A proxyConn is a connection that a ProxyCommand makes: its standard input
// and output.
type proxyConn struct {
	io.WriteCloser
	out  *os.File
	cmd  *exec.Cmd
	once sync.Once
}

// runProxy runs a ProxyCommand as ssh(1) does, with the shell. What it says on
// standard error goes to ours.
func runProxy(command string) (net.Conn, error) {
	cmd := exec.Command("/bin/sh", "-c", "exec "+command)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, w, err := os.Pipe()
	if err != nil {
		in.Close()
		return nil, err
	}
	defer w.Close()
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		in.Close()
		out.Close()
		return nil, err
	}
	return &proxyConn{WriteCloser: in, out: out, cmd: cmd}, nil
}

func (c *proxyConn) Read(p []byte) (int, error) { return c.out.Read(p) }

// Close kills the command, with what it has started, and waits for it.
func (c *proxyConn) Close() error {
	c.once.Do(func() {
		c.WriteCloser.Close()
		syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL)
		c.cmd.Wait()
		c.out.Close()
	})
	return nil
}

func (c *proxyConn) LocalAddr() net.Addr                { return proxyAddr{} }
func (c *proxyConn) RemoteAddr() net.Addr               { return proxyAddr{} }
func (c *proxyConn) SetDeadline(t time.Time) error      { return os.ErrNoDeadline }
func (c *proxyConn) SetReadDeadline(t time.Time) error  { return os.ErrNoDeadline }
func (c *proxyConn) SetWriteDeadline(t time.Time) error { return os.ErrNoDeadline }

// proxyAddr is the address of a connection of which only the command knows.
type proxyAddr struct{}

func (proxyAddr) Network() string { return "proxy" }
func (proxyAddr) String() string  { return "ProxyCommand" }
