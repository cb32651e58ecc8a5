package main

import (
	"testing"

	"payments/internal/devstack/devtest"
	"payments/internal/postgres"
)

func TestMain(m *testing.M) { devtest.Main(m, devtest.WithMigrations(postgres.Migrate)) }
