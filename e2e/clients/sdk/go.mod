// A caller of the stock Go SDK of DevOps Secrets Vault.
module dsv.dev/e2e/clients/sdk

go 1.24.0

require github.com/DelineaXPM/dsv-sdk-go/v2 v2.1.2

require (
	github.com/aws/aws-sdk-go v1.50.3 // indirect
	github.com/jmespath/go-jmespath v0.4.0 // indirect
)
