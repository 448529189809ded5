#!/usr/bin/env bash
# focus-validator 1.0.0 (PyPI, the FinOps Foundation's own), which says that it validates FOCUS 1.0: a table with each column
# of FOCUS 1.0 under its Column ID (focus.finops.org, specification 1.0, "Columns"), and values that these allow, is valid.
#
# Guessed: it passes `--validate-version 1.0`; and where a table fails, the exit status says so.
# Seen: "Provider_Required failed", and so InvoiceIssuer, Publisher and ResourceID, which the specification calls ProviderName,
# InvoiceIssuerName, PublisherName and ResourceId; `SkuPriceId_Nullable failed: KeyError("ChargeType")`, a column of FOCUS 0.5;
# `BillingCurrency_IsCurrencyCode failed: FileNotFoundError`: the list of currencies is not in the package; and a column of whole
# numbers, such as a quantity of 10, is not "of decimal type". So no table of FOCUS 1.0 passes. "Validation failed!" ends with
# exit status 0: a build that runs it never fails. (It starts only beside multimethod below 1.12, which it does not ask for.)
# Read its report by hand, and check a table by the specification.
set -euo pipefail

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check 'focus-validator==1.0.0' 'multimethod<1.12'

cat > "$folder/charges.csv" <<'CSV'
AvailabilityZone,BilledCost,BillingAccountId,BillingAccountName,BillingCurrency,BillingPeriodEnd,BillingPeriodStart,ChargeCategory,ChargeClass,ChargeDescription,ChargeFrequency,ChargePeriodEnd,ChargePeriodStart,CommitmentDiscountCategory,CommitmentDiscountId,CommitmentDiscountName,CommitmentDiscountStatus,CommitmentDiscountType,ConsumedQuantity,ConsumedUnit,ContractedCost,ContractedUnitPrice,EffectiveCost,InvoiceIssuerName,ListCost,ListUnitPrice,PricingCategory,PricingQuantity,PricingUnit,ProviderName,PublisherName,RegionId,RegionName,ResourceId,ResourceName,ResourceType,ServiceCategory,ServiceName,SkuId,SkuPriceId,SubAccountId,SubAccountName,Tags
zone-a,2.5,account-1,Acme,USD,2026-12-01T00:00:00Z,2026-11-01T00:00:00Z,Usage,,Use,Usage-Based,2026-11-02T00:00:00Z,2026-11-01T00:00:00Z,,,,,,10,Tokens,2.5,0.25,2.5,Seller,2.5,0.25,Standard,10,Tokens,Seller,Seller,eu,Europe,model-1,Model,Model,AI and Machine Learning,Inference,sku-1,price-1,key-1,Key,{}
CSV
set +e
told=$("$folder/venv/bin/focus-validator" --data-file "$folder/charges.csv" --validate-version 1.0 2>&1)
status=$?
set -e
printf '%s\nexit status %s\n' "$told" "$status"
for said in 'Provider_Required failed' 'ResourceID_Required failed' 'KeyError("ChargeType")' 'FileNotFoundError' 'Validation failed!'; do
    [[ $told == *"$said"* ]] || exit 1
done
[[ $status == 0 ]]
