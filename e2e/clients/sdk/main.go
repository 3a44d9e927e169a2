// Calls the stock Go SDK of DevOps Secrets Vault, which has no program of its own: one line of JSON on standard input for each
// call, one on standard output for what came back. All calls are made by one process, as by the programs that are built on it.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"

	"github.com/DelineaXPM/dsv-sdk-go/v2/vault"
)

type call struct {
	Name, Path string
	Secret     vault.SecretCreateRequest
}

type answer struct {
	Value any    `json:"value"`
	Error string `json:"error,omitempty"`
}

func main() {
	dsv, err := vault.New(vault.Configuration{
		Credentials: vault.ClientCredential{
			ClientID:     os.Getenv("CLIENT_ID"),
			ClientSecret: os.Getenv("CLIENT_SECRET"),
		},
		Tenant:      "any",
		URLTemplate: os.Getenv("URL_TEMPLATE"),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	lines, out := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for lines.Scan() {
		var asked call
		var said answer
		err := json.Unmarshal(lines.Bytes(), &asked)
		if err == nil {
			said.Value, err = ask(dsv, asked)
		}
		if err != nil {
			said.Error = err.Error()
		}
		if err := out.Encode(said); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

func ask(dsv *vault.Vault, asked call) (any, error) {
	switch asked.Name {
	case "secret":
		return dsv.Secret(asked.Path)
	case "create-secret":
		return dsv.CreateSecret(asked.Path, &asked.Secret)
	case "delete-secret":
		return nil, dsv.DeleteSecret(asked.Path)
	case "role":
		return dsv.Role(asked.Path)
	case "client":
		return dsv.Client(asked.Path)
	case "new-client":
		client := new(vault.Client)
		client.RoleName = asked.Path
		return client, dsv.New(client)
	case "delete-client":
		client, err := dsv.Client(asked.Path)
		if err != nil {
			return nil, err
		}
		return nil, client.Delete()
	default:
		return nil, fmt.Errorf("the SDK has no %q", asked.Name)
	}
}
