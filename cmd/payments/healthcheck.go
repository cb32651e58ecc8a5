package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// healthcheck is for images that have no shell and no curl.
func healthcheck(ctx context.Context, e environment) error {
	if len(e.args) != 1 {
		return errors.New("healthcheck takes one URL")
	}
	if err := answers(ctx, e.args[0]); err != nil {
		return fmt.Errorf("healthcheck: %w", err)
	}
	return nil
}

// answers is nil when the URL answers 2xx within 3 s.
func answers(ctx context.Context, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
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
