// Package providertest holds what every provider.Provider promises, as tests
// that run over each of them alike.
package providertest
