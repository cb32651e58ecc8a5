package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/urfave/cli/v3"
)

// healthcheckCommand is for images that have no shell and no curl.
func (environment) healthcheckCommand() *cli.Command {
	return &cli.Command{
		Name: "healthcheck", Usage: "exit 0 if a URL answers 2xx", ArgsUsage: "URL",
		Description: about("Waits for 3 s at most. Exit code 1 for another answer, 3 without one.", "payments healthcheck http://127.0.0.1:8081/readyz"),
		Action: func(ctx context.Context, c *cli.Command) error {
			address, err := oneArgument(c, "one URL")
			if err != nil {
				return err
			}
			if u, err := url.Parse(address); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
				return usagef("%s: the argument must be an http or https URL", c.FullName())
			}
			if err := answers(ctx, address); err != nil {
				return fmt.Errorf("healthcheck: %w", err)
			}
			return nil
		},
	}
}

// answers is nil when the URL answers 2xx within 3 s.
func answers(ctx context.Context, address string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{}).Do(req)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		err = fmt.Errorf("it answered %s", resp.Status)
	}
	return errors.Join(err, resp.Body.Close())
}
