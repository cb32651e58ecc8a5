package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/urfave/cli/v3"

	"payments/internal/secret"
)

// keptByDatabase are the ones that a database is made with. It is of no use with others.
var keptByDatabase = []string{"PAYMENTS_OWNER_PASSWORD", "PAYMENTS_DB_PASSWORD", "PAYMENTS_PEPPER_KEYSET", "PAYMENTS_ENCRYPTION_KEYSET"}

// passwordOf names the secret that is the password of a URL in the environment.
var passwordOf = map[string]string{
	"PAYMENTS_DATABASE_URL": "PAYMENTS_DB_PASSWORD", "PAYMENTS_MIGRATE_DATABASE_URL": "PAYMENTS_OWNER_PASSWORD",
}

const beginAnew = "remove the stack's data and begin anew with `docker compose down --volumes`"

// vault is the directory that keeps the secrets of docker compose's stack, each in a file
// of its name.
type vault struct {
	environment
	dir string
}

func (e environment) vault() (vault, error) {
	dir, err := e.required("PAYMENTS_SECRETS_DIR")
	return vault{e, dir}, err
}

// holder is a directory that gets copies of some secrets, for one service.
type holder struct {
	dir   string
	names []string
}

func (e environment) keepCommand() *cli.Command {
	return &cli.Command{
		Name: "keep", Usage: "keep the secrets of docker compose's stack, as files",
		Description: about("Those of the environment, else those of an earlier start, else fresh ones, in PAYMENTS_SECRETS_DIR.",
			"payments secrets keep -database /var/lib/postgresql -give /run/service:PAYMENTS_API_KEY"),
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "database", Usage: "Postgres' data `DIR`: while it holds a database, the secrets that it was made with are not replaced by fresh ones"},
			&cli.StringSliceFlag{Name: "give", Usage: "`DIR:NAME,NAME…` copies these secrets to the directory; may be repeated"},
		},
		DisableSliceFlagSeparator: true,
		Action:                    alone(e.keepSecrets),
	}
}

// keepSecrets gives a stack its secrets: those of the environment, else those of an
// earlier start, else fresh ones. Everything is checked before anything is written.
func (e environment) keepSecrets(_ context.Context, c *cli.Command) error {
	v, err := e.vault()
	if err != nil {
		return err
	}
	var holders []holder
	for _, s := range c.StringSlice("give") {
		dir, names, ok := strings.Cut(s, ":")
		if !ok || dir == "" || names == "" {
			return usagef("-give %s: it must be DIR:NAME,NAME…", s)
		}
		holders = append(holders, holder{dir, strings.Split(names, ",")})
	}
	kept, made, err := v.settle(c.String("database"))
	if err != nil {
		return err
	}
	files, err := v.copies(kept, holders)
	if err != nil {
		return err
	}
	for name, value := range kept {
		files[filepath.Join(v.dir, name)] = value
	}
	for path, value := range files {
		if err := writeSecret(path, value); err != nil {
			return err
		}
	}
	_, err = fmt.Fprintf(e.stdout, "%d secrets are kept, %d of them new. To read one, for example the merchant's API key:\n  %s\n",
		len(kept), made, e.showCommand("PAYMENTS_API_KEY"))
	return err
}

// settle decides what each secret is. made counts the fresh ones.
func (v vault) settle(database string) (kept map[string]string, made int, err error) {
	kept = map[string]string{}
	var lost []string
	for _, s := range stackSecrets {
		given := v.value(s.name)
		stored, err := v.read(s.name)
		if err != nil {
			return nil, 0, err
		}
		switch {
		case given != "":
			if err := v.accept(s, given, stored); err != nil {
				return nil, 0, usagef("%s %w", s.name, err)
			}
			kept[s.name] = given
		case stored != "":
			kept[s.name] = stored
		default:
			if kept[s.name], err = s.fresh(); err != nil {
				return nil, 0, err
			}
			made++
			if slices.Contains(keptByDatabase, s.name) {
				lost = append(lost, s.name)
			}
		}
	}
	if len(lost) > 0 && database != "" && holdsDatabase(database) {
		return nil, 0, usagef("the database of this stack was made with secrets that are gone (%s): put back the .env file that it was started with, or %s",
			strings.Join(lost, ", "), beginAnew)
	}
	return kept, made, nil
}

// accept refuses a value that is of no use, and a keyset without any key of the former
// one: nothing that was stored could be read any more. A rotation keeps a key at each step.
func (v vault) accept(s namedSecret, given, stored string) error {
	if s.check != nil {
		if err := s.check(given); err != nil {
			return err
		}
	}
	if !s.keyset || stored == "" {
		return nil
	}
	shared, err := secret.ShareKey(given, stored)
	if err != nil || shared {
		return err
	}
	return usagef("has no key of the keyset that this stack was started with, so that nothing it stored could be read: "+
		"take it out of the .env file and the shell's environment, set it to what `%s` prints, or %s", v.showCommand(s.name), beginAnew)
}

// copies are the holders' files, by path.
func (v vault) copies(kept map[string]string, holders []holder) (map[string]string, error) {
	files := map[string]string{}
	for _, h := range holders {
		if info, err := os.Stat(h.dir); err != nil || !info.IsDir() {
			return nil, usagef("-give %s: it must name a directory", h.dir)
		}
		for _, name := range h.names {
			value, ok := kept[name]
			if password := passwordOf[name]; password != "" {
				var err error
				if value, err = v.withPassword(name, kept[password]); err != nil {
					return nil, err
				}
			} else if !ok {
				return nil, usagef("-give %s: there is no secret %q", h.dir, name)
			}
			files[filepath.Join(h.dir, name)] = value
		}
	}
	return files, nil
}

// withPassword is the URL of the variable, which has a user and no password, with it.
func (v vault) withPassword(variable, password string) (string, error) {
	text, err := v.required(variable)
	if err != nil {
		return "", err
	}
	u, err := url.Parse(text)
	if err != nil || u.User == nil {
		return "", usagef("%s must be a Postgres URL with a user", variable)
	}
	u.User = url.UserPassword(u.User.Username(), password)
	return u.String(), nil
}

func (e environment) showSecretsCommand() *cli.Command {
	return &cli.Command{
		Name: "show", Usage: "print one kept secret, or all of them as NAME=value", ArgsUsage: "[NAME]",
		Description: about("", "payments secrets show PAYMENTS_OPERATOR_KEY"), Flags: shows(),
		Action: e.showSecrets,
	}
}

// showSecrets prints the value of one kept secret, or all of them as NAME=value.
func (e environment) showSecrets(_ context.Context, c *cli.Command) error {
	v, err := e.vault()
	if err != nil {
		return err
	}
	if c.NArg() > 1 {
		return usagef("secrets show takes the name of one secret, or none for all")
	}
	var found variables
	for _, s := range stackSecrets {
		if c.NArg() == 1 && c.Args().First() != s.name {
			continue
		}
		value, err := v.read(s.name)
		if err != nil {
			return err
		}
		if value == "" {
			return usagef("%s is not there yet: start the stack first", s.name)
		}
		found = append(found, [2]string{s.name, value})
	}
	if len(found) == 0 {
		return usagef("there is no secret %q", c.Args().First())
	}
	if c.NArg() == 1 && !asJSON(c) {
		_, err = fmt.Fprintln(e.stdout, found[0][1])
		return err
	}
	return e.showVariables(c, found)
}

// showCommand is typed where docker-compose.yml is. VERSION is the image's, if another
// than the default was asked for.
func (e environment) showCommand(name string) string {
	command := "docker compose run --rm -T --no-deps secrets show " + name
	if version := e.value("VERSION"); version != "" {
		command = "VERSION=" + version + " " + command
	}
	return command
}

// read gives "" for a secret that is not there.
func (v vault) read(name string) (string, error) {
	content, err := os.ReadFile(filepath.Join(v.dir, name))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("PAYMENTS_SECRETS_DIR: %w", err)
	}
	return strings.TrimRight(string(content), "\r\n"), nil
}

// writeSecret writes all or nothing. The file is open to whoever sees its directory: the
// service that it is for runs as another user, and no other service mounts that directory.
func writeSecret(path, value string) error {
	if err := os.WriteFile(path+".new", []byte(value+"\n"), 0o600); err != nil {
		return err
	}
	if err := os.Chmod(path+".new", 0o444); err != nil { //nolint:gosec // see above
		return err
	}
	return os.Rename(path+".new", path)
}

// holdsDatabase tells a directory that Postgres has taken, which it closes to all others,
// from an empty one.
func holdsDatabase(dir string) bool {
	entries, err := os.ReadDir(dir)
	return len(entries) > 0 || errors.Is(err, fs.ErrPermission)
}
