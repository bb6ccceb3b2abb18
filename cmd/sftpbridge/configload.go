package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/goccy/go-yaml"
	"github.com/goccy/go-yaml/ast"
	"github.com/goccy/go-yaml/parser"
	"github.com/goccy/go-yaml/token"
)

// maxConfig bounds a configuration file, in bytes.
const maxConfig = 1 << 20

// loadConfig reads and checks a configuration file. An error names the file,
// line and column of each thing that is wrong, one a line.
func loadConfig(file string) (*plan, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxConfig+1))
	if err != nil {
		return nil, err
	}
	return parseConfig(file, data)
}

// parseConfig is loadConfig of what the file holds.
func parseConfig(file string, data []byte) (*plan, error) {
	if len(data) > maxConfig {
		return nil, fmt.Errorf("%s:1:1: longer than %d bytes", file, maxConfig)
	}
	root, cfg, err := decodeConfig(data)
	if err != nil {
		return nil, located(file, err)
	}
	if len(root.Docs) > 1 {
		return nil, fmt.Errorf("%s:%s: a second document", file, position(root.Docs[1].GetToken()))
	}
	p, problems := compile(cfg)
	if len(problems) == 0 {
		return p, nil
	}
	return nil, errors.New(describe(file, root, problems))
}

// decodeConfig has the YAML package take the file apart, which panics on some
// that are none.
func decodeConfig(data []byte) (root *ast.File, cfg *config, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = errors.New("this is not YAML that can be read")
		}
	}()
	if root, err = parser.ParseBytes(data, 0); err != nil {
		return nil, nil, err
	}
	cfg = new(config)
	dec := yaml.NewDecoder(bytes.NewReader(data), yaml.Strict())
	if err := dec.Decode(cfg); err != nil && err != io.EOF {
		return nil, nil, err
	}
	return root, cfg, nil
}

// located puts the place of an error of the YAML package before its message.
func located(file string, err error) error {
	if e, ok := errors.AsType[yaml.Error](err); ok {
		return fmt.Errorf("%s:%s: %s", file, position(e.GetToken()), e.GetMessage())
	}
	return fmt.Errorf("%s:1:1: %s", file, strings.TrimSpace(err.Error()))
}

func position(tok *token.Token) string {
	if tok == nil || tok.Position == nil {
		return "1:1"
	}
	return fmt.Sprintf("%d:%d", max(tok.Position.Line, 1), max(tok.Position.Column, 1))
}

// A problem is something wrong at a place in the configuration, such as
// "trees[0].backend".
type problem struct {
	path string
	msg  string
	file bool // a file that cannot be used
}

// describe writes the problems in the order of the file.
func describe(file string, root *ast.File, problems []problem) string {
	type line struct {
		row, col int
		text     string
	}
	var lines []line
	for _, p := range problems {
		tok := find(root, p.path)
		l := line{row: 1, col: 1}
		if tok != nil && tok.Position != nil {
			l.row, l.col = max(tok.Position.Line, 1), max(tok.Position.Column, 1)
		}
		where := p.path
		if where != "" {
			where += ": "
		}
		l.text = fmt.Sprintf("%s:%d:%d: %s%s", file, l.row, l.col, where, p.msg)
		lines = append(lines, l)
	}
	slices.SortStableFunc(lines, func(a, b line) int {
		if a.row != b.row {
			return a.row - b.row
		}
		return a.col - b.col
	})
	var texts []string
	for _, l := range lines {
		texts = append(texts, l.text)
	}
	return strings.Join(texts, "\n")
}

// find returns the token at a path, or at the nearest thing above it that is
// in the file.
func find(root *ast.File, path string) *token.Token {
	for path != "" {
		if p, err := yaml.PathString("$." + path); err == nil {
			if node, err := p.FilterFile(root); err == nil && node != nil {
				return firstToken(node)
			}
		}
		path = path[:max(strings.LastIndexAny(path, ".["), 0)]
	}
	return nil
}

// firstToken returns where a node begins: a mapping's own token is the colon
// after its first key.
func firstToken(node ast.Node) *token.Token {
	switch n := node.(type) {
	case *ast.MappingNode:
		if len(n.Values) > 0 && !n.IsFlowStyle {
			return n.Values[0].Key.GetToken()
		}
	case *ast.MappingValueNode:
		return n.Key.GetToken()
	}
	return node.GetToken()
}
