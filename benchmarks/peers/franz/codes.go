// Made by `make fields` from bridge/report/symbols.py and config/error_codes.toml; not to be edited.

package main

var wireStatuses = []struct {
	wire, symbol string
	rank         byte
}{
	{"sent", "SENT", '1'},
	{"delivered", "DELIVERED", '2'},
	{"read", "READ", '3'},
	{"failed", "FAILED", '0'},
	{"deleted", "DELETED", '0'},
	{"subscribed", "SUBSCRIBED", '0'},
	{"unsubscribed", "UNSUBSCRIBED", '0'},
	{"subscribe", "SUBSCRIBED", '0'},
	{"unsubscribe", "UNSUBSCRIBED", '0'},
}

var codes = []struct {
	meaning meaning
	codes   string
}{
	{meaning{"PERMISSION", "NO"}, "3 10 200 201 202 203 204 205 206 207 208 209 210 211 212 213 214 215 216 217 218 219 220 221 222 223 224 225 226 227 228 229 230 231 232 233 234 235 236 237 238 239 240 241 242 243 244 245 246 247 248 249 250 251 252 253 254 255 256 257 258 259 260 261 262 263 264 265 266 267 268 269 270 271 272 273 274 275 276 277 278 279 280 281 282 283 284 285 286 287 288 289 290 291 292 293 294 295 296 297 298 299 131005 131030 Authentication.NoAuth Ram.PermissionDeny Unknown.ResourceOwnerId"},
	{meaning{"ACCOUNT", "NO"}, "190 33 131037 131045 131063 133000 133005 133006 133010 137000 2388012 2388091 2388093 2388103 ERR-OPERATION-MAAP-0060 ERR-OPERATION-MAAP-0065 Product.Unsubscript"},
	{meaning{"POLICY", "NO"}, "368 130497 131031"},
	{meaning{"RATE_LIMIT", "LATER"}, "4 80007 130429 131056 133016 132069 System.LimitControl"},
	{meaning{"SPAM_LIMIT", "LATER"}, "131048"},
	{meaning{"POLICY", "LATER"}, "131064"},
	{meaning{"TRANSIENT", "LATER"}, "1 2 131000 131016 131057 133004 2494100"},
	{meaning{"UNKNOWN", "UNKNOWN"}, "100 130472 131008 131009 135000 1752041 200005 200006 200007 2593107 2593108 SRVC_BAD_DATA SRVC_BAD_DURATION SRVC_BAD_FILE_NAME_LENGTH SRVC_BAD_FILE_SIZE SRVC_BAD_LABEL SRVC_BAD_MESSAGE_TYPE SRVC_BAD_PARAMETERS SRVC_BAD_SERVICE_ID SRVC_BAD_THUMBNAIL SRVC_FILE_NOT_PERMITTED SRVC_INTERNAL_FAILURE SRVC_INVALID_TTL SRVC_NOT_PERMITTED SRVC_NOT_VIBER_USER SRVC_NO_SUITABLE_DEVICE SRVC_TIMEOUT SRVC_UNAUTHORIZED_IP SRVC_USER_BLOCKED SRVC_WAIT_FOR_USER_RESPONSE CHAT.APIError ERR-COMMON-001 ERR-FB-001 ERR-OPERATION-MAAP-0085 InvalidParameter.AuditStatusNotSupport InvalidParameter.ChannelTypeNotSupport InvalidParameter.ContentError InvalidParameter.ContentNotEmpty InvalidParameter.FromOnlyNumeric InvalidParameter.MessageInvalid InvalidParameter.MessageTypeNotEmpty InvalidParameter.MessageTypeNotSupport InvalidParameter.PageInvalid InvalidParameter.PhoneNumberError InvalidParameter.SendSmsNotSupport InvalidParameter.TextNotEmpty TemplateListError.QueryError"},
	{meaning{"UNDELIVERABLE", "NO"}, "130403 131021 131026"},
	{meaning{"PAYMENT", "NO"}, "131042 134011"},
	{meaning{"EXPIRED", "NO"}, "131043"},
	{meaning{"RE_ENGAGEMENT", "NO"}, "131047"},
	{meaning{"ECOSYSTEM_LIMIT", "LATER"}, "131049"},
	{meaning{"OPT_OUT", "NO"}, "131050"},
	{meaning{"MEDIA", "NO"}, "131051 131052 131053 InvalidParameter.LinkNotEmpty"},
	{meaning{"TEMPLATE", "NO"}, "132000 132001 132005 132007 132012 132016 132018 132068 131055 134100 134102 2388019 2388039 2388040 2388047 2388072 2388073 2388293 2388299 DelError.TemplateNotExist DetailError.TemplateNotExist InvalidParameter.ButtonTextHaveVariable InvalidParameter.CreateError InvalidParameter.FooterHaveVariable InvalidParameter.HeaderMoreVarable InvalidParameter.HeaderMoreVariable InvalidParameter.HeaderTypeNotSupport InvalidParameter.LanguageNotEmpty InvalidParameter.LanguageNotSupport InvalidParameter.TemplateCodeNotEmpty InvalidParameter.TemplateNameExist InvalidParameter.TemplateTypeNotSupport InvalidParameter.UrlMoreVarable InvalidParameter.UrlMoreVariable"},
	{meaning{"TEMPLATE", "LATER"}, "132015 134101"},
	{meaning{"ACCOUNT", "LATER"}, "133008 133009 133015"},
}
