package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

func newHashPassword() *cobra.Command {
	return &cobra.Command{
		Use:   "hash-password",
		Short: "Print the hash of a password, for the configuration",
		Long: `hash-password asks for a password (or reads a line of standard input, if that is
no terminal) and prints its argon2id hash for password_hash in the configuration.`,
		Args: exactArgs(),
		RunE: func(cmd *cobra.Command, args []string) error {
			password, err := newPassword(cmd.InOrStdin(), cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), hashPassword(password))
			return err
		},
	}
}

// newPassword asks twice on a terminal, and reads one line of anything else.
func newPassword(in io.Reader, out io.Writer) (string, error) {
	f, ok := in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		line, err := bufio.NewReader(in).ReadString('\n')
		if line == "" {
			return "", errors.Join(errors.New("no password on standard input"), ignoreEOF(err))
		}
		return checkPassword(strings.TrimRight(line, "\r\n"))
	}
	var answers [2]string
	for i, prompt := range []string{"Password: ", "Again: "} {
		fmt.Fprint(out, prompt)
		answer, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(out)
		if err != nil {
			return "", err
		}
		answers[i] = string(answer)
	}
	if answers[0] != answers[1] {
		return "", errors.New("the two are not the same")
	}
	return checkPassword(answers[0])
}

func checkPassword(password string) (string, error) {
	if password == "" {
		return "", errors.New("the password is empty")
	}
	return password, nil
}

func ignoreEOF(err error) error {
	if err == io.EOF {
		return nil
	}
	return err
}
