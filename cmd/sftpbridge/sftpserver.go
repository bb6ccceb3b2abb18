package main

import (
	"context"
	"errors"
	"io"
	"os"
	"path"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"sftpbridge/sftpsrv"
)

func newSFTPServer() *cobra.Command {
	f := treeFlags{log: logConfig{}}
	var startDir string
	var deny []string
	cmd := &cobra.Command{
		Use:   "sftp-server [flags] BACKEND",
		Short: "Serve one SFTP session on standard input and output",
		Long: `sftp-server serves a session as whoever runs it. It is for sshd_config,

	Subsystem sftp /usr/local/bin/sftpbridge sftp-server /srv

and for "sftp -D".

` + backendForms + `.`,
		Args: exactArgs("BACKEND"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if in, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(in.Fd())) {
				return errors.New("standard input is a terminal: a client has to speak SFTP there")
			}
			cfg, err := f.config(args[0])
			if err != nil {
				return err
			}
			if startDir != "" {
				cfg.Users[0].Home = path.Join("/", strings.TrimPrefix(startDir, "~"))
			}
			return serveSession(cmd.Context(), cfg, f.tree, deny, cmd.InOrStdin(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	fs := cmd.Flags()
	f.addUpstream(fs)
	fs.BoolVarP(&f.tree.ReadOnly, "readonly", "R", false, "change nothing, as --read-only")
	fs.StringVarP(&f.umask, "umask", "u", "", "octal `UMASK` of what is made (default 022)")
	fs.StringVarP(&startDir, "start-dir", "d", "", "`DIR` of the tree to begin in")
	fs.StringSliceVarP(&deny, "deny", "P", nil, "`REQUESTS` to refuse, by the names of sftp-server(8), separated by commas")
	fs.StringVar(&f.log.Level, "log-level", "warn", "log `LEVEL`: debug, info, warn or error")
	fs.StringVar(&f.log.Format, "log-format", "text", "log `FORMAT`: text or json")
	return cmd
}

// serveSession opens the tree of t and serves one session of it.
func serveSession(ctx context.Context, cfg *config, t treeConfig, deny []string, in io.Reader, out, stderr io.Writer) (err error) {
	var c compiler
	users := c.users(cfg)
	logs := c.log(cfg.Log)
	p := c.openable("", t, users)
	if len(c.problems) > 0 {
		return usageError{c.problems[0].msg}
	}
	log := newLogger(logs, stderr)
	p.options.Logger = log
	ctx, stop := signalContext(ctx)
	defer stop()
	tree, err := openTree(ctx, p, log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, tree.Close()) }()
	avatar, err := users.invoking()
	if err != nil {
		return err
	}
	view, err := tree.View(ctx, avatar, tree.NewDoor())
	if err != nil {
		return err
	}
	defer view.Close()
	err = sftpsrv.Serve(ctx, &stdio{in, out}, served{view, users.accounts}, sftpsrv.SessionOptions{
		Parallel: tree.Traits().Slow,
		Deny:     deny,
		Logger:   log,
	})
	return stopped(ctx, err)
}

// stdio is standard input and output as one stream.
type stdio struct {
	io.Reader
	io.Writer
}

// Close ends a read that waits.
func (s *stdio) Close() error {
	var errs []error
	for _, end := range []any{s.Reader, s.Writer} {
		if c, ok := end.(io.Closer); ok {
			errs = append(errs, c.Close())
		}
	}
	return errors.Join(errs...)
}
