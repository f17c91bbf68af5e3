// Made by `make fields` from bridge/report/fields.py; not to be edited.

package main

import "strconv"

// A report as documented: strings are strings, times are numbers.
type report struct {
	MessageID                  string `json:"MessageId"`
	TaskID                     string `json:"TaskId"`
	From                       string `json:"From"`
	To                         string `json:"To"`
	OriginPhoneNumber          string `json:"OriginPhoneNumber"`
	UserID                     string `json:"UserId"`
	FromUserID                 string `json:"FromUserId"`
	ParentUserID               string `json:"ParentUserId"`
	FromParentUserID           string `json:"FromParentUserId"`
	UserName                   string `json:"UserName"`
	FromUserName               string `json:"FromUserName"`
	Status                     string `json:"Status"`
	StatusDescription          string `json:"StatusDescription"`
	Timestamp                  *int64 `json:"Timestamp"`
	ErrorCode                  string `json:"ErrorCode"`
	Error                      string `json:"Error"`
	ErrorDescription           string `json:"ErrorDescription"`
	ConversationID             string `json:"ConversationId"`
	ConversationType           string `json:"ConversationType"`
	ConversationExpirationTime *int64 `json:"ConversationExpirationTime"`
	ConversionExpirationTime   *int64 `json:"ConversionExpirationTime"`
	MsgFrameType               string `json:"MsgFrameType"`
	Type                       string `json:"Type"`
	TemplateCode               string `json:"TemplateCode"`
	TemplateName               string `json:"TemplateName"`
	Language                   string `json:"Language"`
}

func (r *report) texts() []*string {
	return []*string{
		&r.MessageID,
		&r.TaskID,
		&r.From,
		&r.To,
		&r.OriginPhoneNumber,
		&r.UserID,
		&r.FromUserID,
		&r.ParentUserID,
		&r.FromParentUserID,
		&r.UserName,
		&r.FromUserName,
		&r.Status,
		&r.StatusDescription,
		&r.ErrorCode,
		&r.Error,
		&r.ErrorDescription,
		&r.ConversationID,
		&r.ConversationType,
		&r.MsgFrameType,
		&r.Type,
		&r.TemplateCode,
		&r.TemplateName,
		&r.Language,
	}
}

func (r *report) aliases() {
	if r.UserID == "" {
		r.UserID = r.FromUserID
	}
	if r.ParentUserID == "" {
		r.ParentUserID = r.FromParentUserID
	}
	if r.UserName == "" {
		r.UserName = r.FromUserName
	}
	if r.ErrorCode == "" {
		r.ErrorCode = r.Error
	}
	if r.ConversationExpirationTime == nil {
		r.ConversationExpirationTime = r.ConversionExpirationTime
	}
}

func (r *report) members(to []byte, made *made) []byte {
	to = text(append(to, `{"event_id":`...), string(made.id[:]))
	to = text(append(to, `,"message_id":`...), r.MessageID)
	to = text(append(to, `,"task_id":`...), or(r.TaskID, r.MessageID))
	to = strconv.AppendBool(append(to, `,"task_id_defaulted":`...), r.TaskID == "")
	to = text(append(to, `,"sender":`...), r.From)
	to = text(append(to, `,"recipient":`...), r.To)
	to = text(append(to, `,"origin_phone_number":`...), r.OriginPhoneNumber)
	to = text(append(to, `,"user_id":`...), r.UserID)
	to = text(append(to, `,"parent_user_id":`...), r.ParentUserID)
	to = text(append(to, `,"user_name":`...), r.UserName)
	to = text(append(to, `,"status":`...), made.status.symbol)
	to = text(append(to, `,"provider_status":`...), r.Status)
	to = append(append(to, `,"status_rank":`...), made.status.rank)
	to = text(append(to, `,"status_description":`...), r.StatusDescription)
	to = strconv.AppendInt(append(to, `,"message_time":`...), made.sent, 10)
	to = text(append(to, `,"message_time_source":`...), made.source)
	to = strconv.AppendInt(append(to, `,"received_at":`...), made.receivedAt, 10)
	to = text(append(to, `,"error_code":`...), made.code)
	to = text(append(to, `,"error_description":`...), r.ErrorDescription)
	to = text(append(to, `,"error_category":`...), made.meaning.category)
	to = text(append(to, `,"error_retry":`...), made.meaning.retry)
	to = text(append(to, `,"conversation_id":`...), r.ConversationID)
	to = text(append(to, `,"conversation_type":`...), folded(r.ConversationType))
	to = number(append(to, `,"conversation_expires_at":`...), r.ConversationExpirationTime)
	to = text(append(to, `,"message_frame_type":`...), made.frame)
	to = text(append(to, `,"content_type":`...), folded(r.Type))
	to = text(append(to, `,"template_code":`...), r.TemplateCode)
	to = text(append(to, `,"template_name":`...), r.TemplateName)
	to = text(append(to, `,"template_language":`...), r.Language)
	to = text(append(to, `,"extras":`...), "")
	return append(to, '}')
}
