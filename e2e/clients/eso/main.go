// Reads with the stock provider for DevOps Secrets Vault of External Secrets, unchanged, which is what its operator runs for each
// ExternalSecret: the store on standard input, as it stands in a SecretStore, then one line of JSON for each reference; one line on
// standard output for what came back.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"

	esv1 "github.com/external-secrets/external-secrets/apis/externalsecrets/v1"
	"github.com/external-secrets/external-secrets/pkg/provider/delinea"
)

type answer struct {
	Value string            `json:"value"`
	Keys  map[string]string `json:"keys"`
	Error string            `json:"error,omitempty"`
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run() error {
	ctx, lines, out := context.Background(), bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	if !lines.Scan() {
		return fmt.Errorf("no store")
	}
	var store esv1.SecretStore
	if err := json.Unmarshal(lines.Bytes(), &store); err != nil {
		return err
	}
	client, err := new(delinea.Provider).NewClient(ctx, &store, nil, store.Namespace)
	if err != nil {
		return err
	}
	for lines.Scan() {
		var ref esv1.ExternalSecretDataRemoteRef
		if err := json.Unmarshal(lines.Bytes(), &ref); err != nil {
			return err
		}
		if err := out.Encode(read(ctx, client, ref)); err != nil {
			return err
		}
	}
	return lines.Err()
}

func read(ctx context.Context, client esv1.SecretsClient, ref esv1.ExternalSecretDataRemoteRef) answer {
	value, err := client.GetSecret(ctx, ref)
	if err != nil {
		return answer{Error: err.Error()}
	}
	said := answer{Value: string(value), Keys: map[string]string{}}
	if ref.Property != "" {
		return said
	}
	keys, err := client.GetSecretMap(ctx, ref)
	if err != nil {
		return answer{Error: err.Error()}
	}
	for key, value := range keys {
		said.Keys[key] = string(value)
	}
	return said
}
