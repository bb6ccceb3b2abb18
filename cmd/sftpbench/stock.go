package main

import (
	"fmt"
	"net"
	"os"

	"github.com/pkg/sftp"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"
)

// newStock is the peer of an SFTP server: what one gets from pkg/sftp and
// x/crypto/ssh in a hundred lines.
func newStock() *cobra.Command {
	var listen, hostKey, authorized string
	cmd := &cobra.Command{
		Use:    "stock",
		Short:  "Serve all files of this machine with the server of pkg/sftp",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			config, err := stockConfig(hostKey, authorized)
			if err != nil {
				return err
			}
			listener, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			go func() {
				<-cmd.Context().Done()
				listener.Close()
			}()
			for {
				conn, err := listener.Accept()
				if cmd.Context().Err() != nil {
					return nil
				}
				if err != nil {
					return err
				}
				go stockConn(conn, config)
			}
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "127.0.0.1:0", "`ADDRESS` to listen at")
	cmd.Flags().StringVar(&hostKey, "host-key", "", "`FILE` of the host key")
	cmd.Flags().StringVar(&authorized, "authorized-key", "", "`FILE` of the key that may log in")
	return cmd
}

func stockConfig(hostKey, authorized string) (*ssh.ServerConfig, error) {
	data, err := os.ReadFile(hostKey)
	if err != nil {
		return nil, err
	}
	signer, err := ssh.ParsePrivateKey(data)
	if err != nil {
		return nil, err
	}
	if data, err = os.ReadFile(authorized); err != nil {
		return nil, err
	}
	key, _, _, _, err := ssh.ParseAuthorizedKey(data)
	if err != nil {
		return nil, err
	}
	config := &ssh.ServerConfig{
		PublicKeyCallback: func(_ ssh.ConnMetadata, k ssh.PublicKey) (*ssh.Permissions, error) {
			if string(k.Marshal()) != string(key.Marshal()) {
				return nil, fmt.Errorf("unknown key")
			}
			return nil, nil
		},
	}
	config.AddHostKey(signer)
	return config, nil
}

func stockConn(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		if c.ChannelType() != "session" {
			c.Reject(ssh.UnknownChannelType, "only sessions")
			continue
		}
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		go stockSession(channel, requests)
	}
}

func stockSession(channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close()
	for r := range requests {
		if r.Type != "subsystem" || len(r.Payload) < 4 || string(r.Payload[4:]) != "sftp" {
			r.Reply(false, nil)
			continue
		}
		r.Reply(true, nil)
		go ssh.DiscardRequests(requests)
		server, err := sftp.NewServer(channel)
		if err != nil {
			return
		}
		server.Serve()
		server.Close()
		return
	}
}
